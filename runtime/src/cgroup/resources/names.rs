//! The names of properties, which runc reads in any case: who writes `"CPU": {"Cpus": "0"}` means it.

use serde_json::{Map, Value};

/// Every name below `linux.resources`, wherever it stands.
const NAMES: [&str; 47] = [
    "access",
    "allow",
    "blockIO",
    "burst",
    "checkBeforeUpdate",
    "classID",
    "cpu",
    "cpus",
    "devices",
    "disableOOMKiller",
    "hcaHandles",
    "hcaObjects",
    "hugepageLimits",
    "idle",
    "kernel",
    "kernelTCP",
    "leafWeight",
    "limit",
    "major",
    "memory",
    "mems",
    "minor",
    "name",
    "network",
    "pageSize",
    "period",
    "pids",
    "priorities",
    "priority",
    "quota",
    "rate",
    "rdma",
    "realtimePeriod",
    "realtimeRuntime",
    "reservation",
    "shares",
    "swap",
    "swappiness",
    "throttleReadBpsDevice",
    "throttleReadIOPSDevice",
    "throttleWriteBpsDevice",
    "throttleWriteIOPSDevice",
    "type",
    "unified",
    "useHierarchy",
    "weight",
    "weightDevice",
];

/// Gives the members of an object, and of all below it, their names as the specification writes them.
/// Returns whether one was written otherwise. Files and devices are no names: they stay.
pub(super) fn correct(value: &mut Value) -> bool {
    match value {
        Value::Array(all) => all.iter_mut().fold(false, |other, one| correct(one) | other),
        Value::Object(members) => {
            let mut other = false;
            for (given, mut value) in std::mem::take(members) {
                let known = NAMES.iter().find(|name| name.eq_ignore_ascii_case(&given));
                let name = known.map_or_else(|| given.clone(), |name| (*name).to_owned());
                other |= name != given;
                other |= match (&*name, &mut value) {
                    ("unified", _) => false,
                    ("rdma", Value::Object(devices)) => below(devices),
                    (_, value) => correct(value),
                };
                match (members.get_mut(&name), value) {
                    (Some(Value::Object(there)), Value::Object(more)) => there.extend(more),
                    (_, value) => drop(members.insert(name, value)),
                }
            }
            other
        }
        _ => false,
    }
}

fn below(devices: &mut Map<String, Value>) -> bool {
    devices.values_mut().fold(false, |other, one| correct(one) | other)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_read_in_any_case() {
        let mut given = json!({
            "CPU": {"Cpus": "0"},
            "cpu": {"mems": "1"},
            "blockio": {"WeightDevice": 1, "throttlereadbpsdevice": [{"Rate": 5}]},
            "Unified": {"Memory": "1"},
            "RDMA": {"Name": {"HcaHandles": 2}},
        });
        let right = json!({
            "cpu": {"cpus": "0", "mems": "1"},
            "blockIO": {"weightDevice": 1, "throttleReadBpsDevice": [{"rate": 5}]},
            "unified": {"Memory": "1"},
            "rdma": {"Name": {"hcaHandles": 2}},
        });
        assert!(correct(&mut given));
        assert_eq!(given, right);
        assert!(!correct(&mut given), "now they are right");
    }
}
