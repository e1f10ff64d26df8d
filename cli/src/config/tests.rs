//! Files in, plans or messages out.

use super::*;
use crate::args::NetworkArgs;

fn host() -> Host {
    Host {
        subnets: vec!["127.0.0.0/8".parse().unwrap()],
        resolver: Some("192.0.2.53:53".parse().unwrap()),
        ..Host::default()
    }
}

fn plan(text: &str) -> Result<Vec<NetworkPlan>, Error> {
    Config::parse(text, Path::new("lan.toml"))?.plan(&host(), Some(Path::new("/var/lib/x")))
}

#[test]
fn everything_may_be_left_out() {
    let plans = plan("[[network]]\n").unwrap();
    assert_eq!(
        plans,
        [NetworkPlan {
            name: "default".into(),
            subnet: "10.210.0.0/24".parse().unwrap(),
            gateway: Ipv4Addr::new(10, 210, 0, 1),
            mtu: 1500,
            uplink: UplinkPlan::User,
            isolate: false,
            resolver: host().resolver,
            search: vec![],
            allow: vec![],
            publish: vec![],
            routes: vec![],
            connect: vec![],
            lease_time: Duration::from_secs(3600),
            state_dir: Some("/var/lib/x".into()),
        }]
    );
}

#[test]
fn everything_may_be_said() {
    let plans = plan(
        r#"
        [[network]]
        name = "lab"
        subnet = "10.9.8.0/30"
        gateway = "10.9.8.2"
        mtu = 65521
        uplink = "user"
        isolate = true
        dns = "127.0.0.1:5353"
        search = ["lan.example", "x"]
        allow = ["127.0.0.1:8080", "10.1.0.0/16", "192.0.2.1:443", "192.0.2.0/24:80", "2001:db8::1", "[::1]:80", "[2001:db8::/32]:80"]
        lease_time = 60

        [[network]]
        name = "dark"
        uplink = "none"
        "#,
    )
    .unwrap();
    let [lab, dark] = &plans[..] else { panic!("{plans:?}") };
    assert_eq!((lab.name.as_str(), lab.gateway, lab.mtu), ("lab", Ipv4Addr::new(10, 9, 8, 2), 65_521));
    assert_eq!(lab.resolver, Some("127.0.0.1:5353".parse().unwrap()));
    assert!(lab.isolate && lab.uplink.is_user() && lab.allow.len() == 7 && lab.search.len() == 2);
    assert_eq!(lab.lease_time, Duration::from_secs(60));
    assert_eq!((dark.name.as_str(), &dark.uplink, dark.resolver), ("dark", &UplinkPlan::None, None));
}

#[test]
fn mistakes_name_their_line_and_the_way_out() {
    for (text, line, expected) in [
        ("[[network]]\nnmae = 'x'\n", 2, "unknown field `nmae`"),
        ("[[network]]\nmtu = 'big'\n", 2, "expected i64"),
        ("[[network]]\nisolate = 1\n", 2, "expected a boolean"),
        ("[network]\nname = 'x'\n", 1, "expected a sequence"),
        ("[[network]]\nname = \n", 2, ""),
        ("[[networks]]\n", 1, "unknown field `networks`"),
        ("# nothing\n", 1, "begin one with a line [[network]]"),
        ("[[network]]\nname = '../x'\n", 2, "letters, digits"),
        ("[[network]]\nsubnet = '10.0.0.0'\n", 2, "as 10.9.0.0/24"),
        ("[[network]]\n\nsubnet = '10.0.0.1/24'\n", 3, "write 10.0.0.0/24"),
        ("[[network]]\nsubnet = '10.0.0.0/31'\n", 2, "/8 to /30"),
        ("[[network]]\nsubnet = '10.0.0.0/7'\n", 2, "/8 to /30"),
        ("[[network]]\nsubnet = '127.0.0.0/24'\n", 2, "reserved"),
        ("[[network]]\nsubnet = '224.0.0.0/24'\n", 2, "reserved"),
        ("[[network]]\nsubnet = '10.0.0.0/24'\ngateway = '10.0.1.1'\n", 3, "outside of subnet 10.0.0.0/24"),
        ("[[network]]\nsubnet = '10.0.0.0/24'\ngateway = '10.0.0.255'\n", 3, "first or last"),
        ("[[network]]\nsubnet = '10.0.0.0/24'\ngateway = 'fe80::1'\n", 3, "not an IPv4 address"),
        ("[[network]]\nmtu = 575\n", 2, "576 to 65521"),
        ("[[network]]\nmtu = 65522\n", 2, "576 to 65521"),
        ("[[network]]\nlease_time = 0\n", 2, "60 to 31536000"),
        ("[[network]]\nuplink = 'wifi'\n", 2, "\"user\", \"none\""),
        ("[[network]]\ndns = 'one.example'\n", 2, "IP or IP:PORT"),
        ("[[network]]\nuplink = 'none'\ndns = '192.0.2.1'\n", 3, "no way out"),
        ("[[network]]\nsearch = ['ok',\n 'not ok']\n", 3, "domain name"),
        ("[[network]]\nsearch = ['-']\n", 2, "domain name"),
        ("[[network]]\nsearch = ['lan', 'a-.lan']\n", 2, "domain name"),
        ("[[network]]\nallow = [\n '10.0.0.1',\n 'all',\n]\n", 4, "ADDR[/LEN][:PORT]"),
        ("[[network]]\nallow = ['10.0.0.1:0']\n", 2, "names port 0"),
        ("[[network]]\nallow = ['127.0.0.1']\n", 2, "as 127.0.0.1:8080"),
        (
            "[[network]]\nallow = ['127.0.0.1:80',\n '127.0.0.2:80']\n",
            3,
            "127.0.0.2:80 and 127.0.0.1:80 would both be port 80",
        ),
        ("[[network]]\nallow = ['::1:80:http']\n", 2, "ADDR[/LEN][:PORT]"),
        ("[[network]]\n[[network]]\n", 2, "two networks are called default"),
        ("[[network]]\nname = 'a'\n[[network]]\nname = 'a'\n", 4, "two networks are called a"),
        (
            "[[network]]\nsubnet = '10.0.0.0/24'\n[[network]]\nname = 'b'\nsubnet = '10.0.0.128/25'\n",
            5,
            "overlaps with 10.0.0.0/24 of network default",
        ),
    ] {
        match plan(text) {
            Ok(plans) => panic!("{text:?} was taken: {plans:?}"),
            Err(error) => {
                let message = error.to_string();
                assert!(message.starts_with(&format!("lan.toml:{line}: ")), "{text:?}: {message}");
                assert!(message.contains(expected), "{text:?}: {message}");
                assert_eq!(error.exit_code(), 1);
            }
        }
    }
}

#[test]
fn an_absent_file_is_named() {
    let error = Config::read(Path::new("/nonexistent/lan.toml")).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/lan.toml") && error.contains("No such file"), "{error}");
}

#[test]
fn a_description_without_end_is_refused() {
    let refused = |path: &Path| Config::read(path).unwrap_err().to_string();
    assert!(refused(Path::new("/dev/zero")).contains("/dev/zero: it is neither a file nor a pipe"));
    assert!(refused(Path::new("/")).contains("neither a file nor a pipe"));
    let home = tempfile::tempdir().unwrap();
    let large = home.path().join("large.toml");
    std::fs::write(&large, "#".repeat(1 << 20)).unwrap();
    assert!(refused(&large).contains("describes no network"), "1 MiB is read");
    std::fs::write(&large, "#".repeat((1 << 20) + 1)).unwrap();
    assert!(refused(&large).contains("larger than 1024 KiB"));
}

#[test]
fn a_subnet_that_the_host_uses_is_taken_if_it_is_asked_for() {
    let host = Host { subnets: vec!["10.9.0.0/16".parse().unwrap()], resolver: None, ..Host::default() };
    let config = Config::parse("[[network]]\nsubnet = '10.9.8.0/24'\n", Path::new("lan.toml")).unwrap();
    assert_eq!(config.plan(&host, None).unwrap()[0].subnet.to_string(), "10.9.8.0/24");
    let net = |text: &str| text.parse::<Ipv4Net>().unwrap();
    assert!(overlap(net("10.9.0.0/16"), net("10.9.8.0/24")) && overlap(net("10.9.8.0/24"), net("10.9.0.0/16")));
    assert!(!overlap(net("10.9.8.0/24"), net("10.9.9.0/24")));
}

#[test]
fn subnets_avoid_the_host_and_each_other() {
    let config = Config::parse(
        "[[network]]\nname='a'\n[[network]]\nname='b'\nsubnet='10.210.2.0/24'\n[[network]]\nname='c'\n",
        Path::new("lan.toml"),
    )
    .unwrap();
    let host = Host { subnets: vec!["10.210.0.0/25".parse().unwrap()], resolver: None, ..Host::default() };
    let plans = config.plan(&host, None).unwrap();
    let subnets: Vec<String> = plans.iter().map(|plan| plan.subnet.to_string()).collect();
    assert_eq!(subnets, ["10.210.1.0/24", "10.210.2.0/24", "10.210.3.0/24"]);

    let full = Host { subnets: vec!["10.0.0.0/8".parse().unwrap()], resolver: None, ..Host::default() };
    let error = config.plan(&full, None).unwrap_err().to_string();
    assert!(error.starts_with("lan.toml:1: ") && error.contains("give the network a subnet"), "{error}");
}

#[test]
fn options_describe_the_default_network() {
    let args = NetworkArgs {
        subnet: Some("10.9.0.0/24".into()),
        gateway: Some("10.9.0.254".into()),
        internal: true,
        isolate: true,
        ..NetworkArgs::default()
    };
    let plans = Config::from_args(&args).plan(&host(), None).unwrap();
    assert_eq!((plans[0].gateway, &plans[0].uplink), (Ipv4Addr::new(10, 9, 0, 254), &UplinkPlan::None));

    let args = NetworkArgs { gateway: Some("10.8.0.1".into()), ..args };
    let error = Config::from_args(&args).plan(&host(), None).unwrap_err();
    assert!(error.to_string().starts_with("--gateway: gateway 10.8.0.1 is outside"), "{error}");
    assert_eq!(error.exit_code(), 2);

    let args = NetworkArgs {
        uplink: Some("tun:ts0".into()),
        uplink_ip: Some("192.0.2.2/24".into()),
        uplink_mtu: Some(1400),
        no_nat: true,
        ..NetworkArgs::default()
    };
    let plans = Config::from_args(&args).plan(&host(), None).unwrap();
    let packet = plans[0].uplink.packet().unwrap();
    assert_eq!((packet.device.as_str(), packet.mtu, packet.translate), ("ts0", Some(1400), false));
    let args =
        NetworkArgs { uplink: Some("nat:eth0".into()), uplink_gateway: Some("x".into()), ..NetworkArgs::default() };
    let error = Config::from_args(&args).plan(&host(), None).unwrap_err();
    assert!(error.to_string().starts_with("--uplink-gateway: uplink_gateway 'x'"), "{error}");

    let error = Config::own(&["everything".into()]).plan(&host(), None).unwrap_err();
    assert!(error.to_string().starts_with("--allow: 'everything'"), "{error}");
    assert_eq!(error.exit_code(), 2);
}
