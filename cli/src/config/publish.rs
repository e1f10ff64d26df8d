//! Ports that a network publishes by the names of its containers: `publish = ["web=8080:80/tcp"]`.

use std::fmt;

use super::place::Set;
use super::{NetworkConfig, NetworkPlan, UplinkPlan, check_name};
use crate::error::Error;
use crate::publish::Spec;

/// A port of a container that is published whenever the container is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishPlan {
    /// The container's name.
    pub name: String,
    /// What is published.
    pub spec: Spec,
}

impl fmt::Display for PublishPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.spec)
    }
}

/// Reads what one network publishes, and judges it by itself.
pub(super) fn publish(texts: &[Set<String>], uplink: &UplinkPlan) -> Result<Vec<PublishPlan>, Error> {
    texts
        .iter()
        .map(|text| {
            let (name, spec) = text.value.split_once('=').ok_or_else(|| {
                text.wrong(format!("'{}' publishes nothing; write NAME=SPEC, as web=8080:80/tcp", text.value))
            })?;
            check_name(name).map_err(|why| text.wrong(why))?;
            let spec: Spec = spec.parse().map_err(|why| text.wrong(why))?;
            check(&spec, uplink).map_err(|why| text.wrong(why))?;
            Ok(PublishPlan { name: name.to_owned(), spec })
        })
        .collect()
}

/// Judges whether an uplink of this kind can publish this.
pub(crate) fn check(spec: &Spec, uplink: &UplinkPlan) -> Result<(), String> {
    match uplink {
        UplinkPlan::None => Err(format!("an internal network has no outside to publish {spec} to; remove it")),
        UplinkPlan::Lan { .. } => Err(format!(
            "containers have addresses of their own on the LAN of {uplink}, so there is nothing to publish {spec} with; \
             remove it"
        )),
        UplinkPlan::User => Ok(()),
        UplinkPlan::Nat(packet) | UplinkPlan::Tun(packet) => match (spec.host, packet.static_address()) {
            _ if !packet.translate => Err(format!(
                "containers have their own addresses outside (translate is false), so there is nothing to publish \
                 {spec} with; let everybody in with filtering = \"endpoint-independent\" in [network.nat]"
            )),
            (Some(host), Some(own)) if host != own.addr() => Err(format!(
                "{host} is not the address of uplink {uplink}, which is {}; write that, or none",
                own.addr()
            )),
            _ => Ok(()),
        },
    }
}

/// Two networks whose uplinks are the host's sockets share the host's ports; every other uplink has its own.
pub(super) fn judge_together(configs: &[NetworkConfig], plans: &[NetworkPlan]) -> Result<(), Error> {
    let all: Vec<(usize, &Set<String>, &PublishPlan)> = configs
        .iter()
        .zip(plans)
        .enumerate()
        .flat_map(|(at, (config, plan))| {
            config.publish.iter().zip(&plan.publish).map(move |(text, plan)| (at, text, plan))
        })
        .collect();
    for (index, (at, text, plan)) in all.iter().enumerate() {
        let shares = |other: &usize| other == at || (plans[*at].uplink.is_user() && plans[*other].uplink.is_user());
        let earlier = all.iter().take(index).find(|(other, _, taken)| shares(other) && taken.spec.collides(&plan.spec));
        if let Some((other, _, taken)) = earlier {
            return Err(text.wrong(format!(
                "{plan} and {taken} of network {} would both have one port; change one of them",
                plans[*other].name
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, Host};
    use super::*;

    fn plan(text: &str) -> Result<Vec<NetworkPlan>, Error> {
        Config::parse(text, Path::new("lan.toml"))?.plan(&Host::default(), None)
    }

    #[test]
    fn ports_are_published_by_the_names_of_containers() {
        let plans = plan(
            "[[network]]\npublish = ['web=8080:80', 'dns=53:53/udp', 'web=443']\n[[network]]\nname = 'b'\n\
             uplink = 'nat:eth0'\npublish = ['web=8080:80']\n",
        )
        .unwrap();
        let shown: Vec<String> = plans[0].publish.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["web=8080:80/tcp", "dns=53:53/udp", "web=443/tcp"]);
        assert_eq!(plans[1].publish.len(), 1, "another uplink has ports of its own");
    }

    #[test]
    fn mistakes_name_their_line_and_the_way_out() {
        let fixed = "uplink = 'nat:eth0'\nuplink_ip = '192.0.2.2/24'\nuplink_gateway = '192.0.2.1'\n";
        for (text, line, expected) in [
            ("publish = ['8080:80']\n".to_owned(), 2, "NAME=SPEC"),
            ("publish = ['../x=8080:80']\n".into(), 2, "cannot be a name"),
            ("publish = ['web=8080:']\n".into(), 2, "cannot be published"),
            ("publish = ['web=80:80',\n 'db=127.0.0.1:80:90']\n".into(), 3, "would both have one port"),
            (
                "publish = ['web=80:80']\n[[network]]\nname = 'b'\npublish = ['db=80:80']\n".into(),
                5,
                "of network default",
            ),
            ("uplink = 'none'\npublish = ['web=80:80']\n".into(), 3, "no outside"),
            ("uplink = 'lan:eth0'\npublish = ['web=80:80']\n".into(), 3, "addresses of their own"),
            ("uplink = 'nat:eth0'\ntranslate = false\npublish = ['web=80:80']\n".into(), 4, "own addresses"),
            (format!("{fixed}publish = ['web=192.0.2.3:80:80']\n"), 5, "not the address of uplink nat:eth0"),
        ] {
            let error = plan(&format!("[[network]]\n{text}")).unwrap_err().to_string();
            assert!(error.starts_with(&format!("lan.toml:{line}: ")) && error.contains(expected), "{text}: {error}");
        }
        plan(&format!("[[network]]\n{fixed}publish = ['web=192.0.2.2:80:80']\n")).unwrap();
    }
}
