//! Lines in, verbs or usage errors out; and what every help text owes its reader.

use super::*;
use clap::CommandFactory;
use clap::error::ErrorKind;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_verb_parses() {
    for line in [
        "tapswitch demo",
        "tapswitch run",
        "tapswitch run -- sh -c true",
        "tapswitch run --network n --name a --ifname e1 --ip 10.0.0.2 --mac 02:42:0a:00:00:02 --no-offload --hostname h \
         --dns 10.0.0.1 --dns 10.0.0.2 --dns-search lan --allow 127.0.0.1:80 -- cmd",
        "tapswitch up",
        "tapswitch up lan.toml --leases /tmp/x --capture a.pcapng --log debug",
        "tapswitch up --poll busy --spin 20",
        "tapswitch up --workers 2 --cpus 0-1 --queues 2 --io uring",
        "tapswitch up --subnet 10.0.0.0/24 --gateway 10.0.0.9 --mtu 9000 --internal --isolate --allow 10.1.0.0/16 --dns 9.9.9.9:53",
        "tapswitch attach 4711 --dhcp",
        "tapswitch attach blue --socket /tmp/s --json",
        "tapswitch detach web",
        "tapswitch ls",
        "tapswitch --json ls",
        "tapswitch network ls",
        "tapswitch network inspect default",
        "tapswitch show ports",
        "tapswitch show fdb --network default",
        "tapswitch show arp",
        "tapswitch show leases",
        "tapswitch show flows",
        "tapswitch show flows --container web --address 192.0.2.9 --port 443 --network n",
        "tapswitch flush flows",
        "tapswitch flush flows --container web --address 2001:db8::9 --port 443 --network n",
        "tapswitch publish web 8080:80 53:53/udp 0:443",
        "tapswitch unpublish web 80",
        "tapswitch run -p 8080:80 --publish 127.0.0.1::53/udp -- cmd",
        "tapswitch attach 1 -p 80",
        "tapswitch network uplink default",
        "tapswitch network uplink default --macvtap",
        "tapswitch up --uplink nat:eth0 --uplink-ip 192.0.2.2/24 --uplink-gateway 192.0.2.1 --uplink-mtu 1400",
        "tapswitch up --uplink tun:ts0 --uplink-ip 192.0.2.2/24 --no-nat --uplink-mac 02:00:00:00:00:01",
        "tapswitch explain --from web --to db",
        "tapswitch explain --from web --to 192.0.2.9 --proto udp --dport 53 --sport 9 --src 10.0.0.9 --size 900 --df --ttl 3",
        "tapswitch explain --from web --to 192.0.2.9 --dport 443 --tcp-flags syn,ack --probe",
        "tapswitch explain --from web --pcap a.pcapng --packet 3",
        "tapswitch show drops",
        "tapswitch events",
        "tapswitch events --network n --json",
        "tapswitch show stats",
        "tapswitch completions bash",
        "tapswitch man",
        "tapswitch man /tmp",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn wrong_lines_are_usage_errors() {
    for (line, kind) in [
        ("tapswitch fly", ErrorKind::InvalidSubcommand),
        ("tapswitch help", ErrorKind::MissingRequiredArgument),
        ("tapswitch attach", ErrorKind::MissingRequiredArgument),
        ("tapswitch attach 1 --dhcp --ip 10.0.0.2", ErrorKind::ArgumentConflict),
        ("tapswitch attach 1 --ip 10.0.0", ErrorKind::ValueValidation),
        ("tapswitch attach 1 --mac 02:42", ErrorKind::ValueValidation),
        ("tapswitch attach 1 --publish http", ErrorKind::ValueValidation),
        ("tapswitch run -p [::1]:80:80", ErrorKind::ValueValidation),
        ("tapswitch publish web", ErrorKind::MissingRequiredArgument),
        ("tapswitch publish web 8080:0", ErrorKind::ValueValidation),
        ("tapswitch unpublish", ErrorKind::MissingRequiredArgument),
        ("tapswitch flush", ErrorKind::MissingRequiredArgument),
        ("tapswitch flush leases", ErrorKind::InvalidValue),
        ("tapswitch show flows --address web", ErrorKind::ValueValidation),
        ("tapswitch show flows --port 0", ErrorKind::ValueValidation),
        ("tapswitch network uplink", ErrorKind::MissingRequiredArgument),
        ("tapswitch up --uplink nat:eth0 --internal", ErrorKind::ArgumentConflict),
        ("tapswitch up lan.toml --uplink nat:eth0", ErrorKind::ArgumentConflict),
        ("tapswitch up lan.toml --no-nat", ErrorKind::ArgumentConflict),
        ("tapswitch run --nmae web", ErrorKind::UnknownArgument),
        ("tapswitch up lan.toml --subnet 10.0.0.0/24", ErrorKind::ArgumentConflict),
        ("tapswitch up lan.toml --isolate", ErrorKind::ArgumentConflict),
        ("tapswitch up --log loud", ErrorKind::InvalidValue),
        ("tapswitch up --log trace", ErrorKind::InvalidValue),
        ("tapswitch show everything", ErrorKind::InvalidValue),
        ("tapswitch network inspect", ErrorKind::MissingRequiredArgument),
        ("tapswitch completions cmd.exe", ErrorKind::InvalidValue),
        ("tapswitch detach", ErrorKind::MissingRequiredArgument),
        ("tapswitch explain --to 192.0.2.9", ErrorKind::MissingRequiredArgument),
        ("tapswitch explain --from web", ErrorKind::MissingRequiredArgument),
        ("tapswitch explain --from web --pcap a.pcapng", ErrorKind::MissingRequiredArgument),
        ("tapswitch explain --from web --pcap a.pcapng --packet 1 --to db", ErrorKind::ArgumentConflict),
        ("tapswitch explain --from web --to db --dport 0", ErrorKind::ValueValidation),
        ("tapswitch explain --from web --to db --tcp-flags syn,what", ErrorKind::InvalidValue),
    ] {
        match parse(line) {
            Ok(cli) => panic!("{line} was taken: {cli:?}"),
            Err(error) => assert_eq!(error.kind(), kind, "{line}: {error}"),
        }
    }
}

#[test]
fn the_file_that_the_help_shows_is_one() {
    use crate::config::{Config, Host, NatPlan};

    let block = |begin: &str| {
        let from = UP_EXAMPLES.find(begin).unwrap_or_else(|| panic!("no {begin} in the help"));
        UP_EXAMPLES[from..].split("\n\n").next().unwrap_or_default()
    };
    let plans = |text: &str| {
        let config = Config::parse(text, std::path::Path::new("help")).unwrap_or_else(|error| panic!("{error}"));
        config.plan(&Host::default(), None).unwrap_or_else(|error| panic!("{error}\n{text}"))
    };
    let shown = plans(&format!("{}\n[[network]]\nname = \"office\"\n", block("  [[network]]")));
    assert_eq!(shown[0].name, "lab");
    let shown = plans(&format!("[[network]]\nuplink = \"nat:eth0\"\n{}\n", block("  [network.nat]")));
    assert_eq!(shown[0].uplink.packet().map(|packet| &packet.nat), Some(&NatPlan::default()));
}

#[test]
fn command_of_run_keeps_its_own_options() {
    for line in ["tapswitch run --name a -- ls -l --json", "tapswitch run --name a ls -l --json"] {
        let cli = parse(line).unwrap();
        assert!(!cli.global.json, "{line}");
        let Verb::Run(run) = cli.verb else { panic!("{line} is not run") };
        assert_eq!(run.cmd, ["ls", "-l", "--json"], "{line}");
    }
}

#[test]
fn every_help_states_defaults_and_an_example() {
    fn check(command: &mut clap::Command, path: &str) {
        let help = command.render_help().to_string();
        assert!(help.contains("Example"), "no example in the help of {path}:\n{help}");
        for argument in command.get_arguments().filter(|a| !a.is_positional()) {
            let text = argument.get_help().map(ToString::to_string).unwrap_or_default();
            let shown = text.contains("[default: ") || !argument.get_default_values().is_empty();
            let own = ["help", "version"].contains(&argument.get_id().as_str());
            assert!(shown || own, "{path}: {} states no default", argument.get_id());
        }
        for verb in command.get_subcommands_mut() {
            let path = format!("{path} {}", verb.get_name());
            check(verb, &path);
        }
    }
    check(&mut Cli::command(), "tapswitch");
}
