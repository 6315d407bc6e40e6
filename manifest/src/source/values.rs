//! Single values: sizes, hardware addresses, device selectors, disk names.

use alloc::{
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};

use crate::Device;
pub use crate::size::{read as size, show as show_size};

/// Reads a duration such as `200us`, in nanoseconds: a number and ns, us, ms or s.
pub(super) fn duration(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ns" => Some(1),
        "us" => Some(1_000),
        "ms" => Some(1_000_000),
        "s" => Some(1_000_000_000_u64),
        _ => None,
    };
    let number = digits.trim_end().parse::<u64>().ok();
    number
        .zip(unit)
        .and_then(|(number, unit)| number.checked_mul(unit))
        .ok_or_else(|| {
            format!("\"{text}\" is no duration; write a number and us, ms or s, such as \"200us\"")
        })
}

/// Reads an Ethernet address, which has to be one that a single interface can have.
pub(super) fn mac(text: &str) -> Result<[u8; 6], String> {
    let wrong = || {
        format!(
            "\"{text}\" is no Ethernet address; write six pairs of hex digits, such as \"02:00:00:00:00:01\""
        )
    };
    let bytes: Vec<u8> = text
        .split(':')
        .map(|pair| {
            if pair.len() == 2 {
                u8::from_str_radix(pair, 16).map_err(|_| wrong())
            } else {
                Err(wrong())
            }
        })
        .collect::<Result<_, _>>()?;
    let address: [u8; 6] = bytes.try_into().map_err(|_| wrong())?;
    if address[0] & 1 != 0 {
        return Err(format!(
            "\"{text}\" is a multicast address; an interface needs an even first byte"
        ));
    }
    Ok(address)
}

/// An Ethernet address of one's own for the `index`th interface of a domain: locally administered, the same in every build.
pub(super) fn derived_mac(appliance: &str, domain: &str, index: usize) -> [u8; 6] {
    let hash = blake3::hash(format!("{appliance}/{domain}/{index}").as_bytes());
    let hash = hash.as_bytes();
    [0x02, hash[0], hash[1], hash[2], hash[3], hash[4]]
}

/// The selectors that a name or an address of hardware stands for.
pub(super) fn devices(text: &str) -> Result<Vec<Device>, String> {
    let class = |class, subclass, interface| {
        vec![Device::PciClass {
            class,
            subclass,
            interface,
        }]
    };
    let virtio = |devices: [u16; 2]| {
        devices
            .map(|device| Device::PciId {
                vendor: 0x1af4,
                device,
            })
            .to_vec()
    };
    Ok(match text {
        "com1" => vec![Device::SerialPort(1)],
        "com2" => vec![Device::SerialPort(2)],
        "com3" => vec![Device::SerialPort(3)],
        "com4" => vec![Device::SerialPort(4)],
        "storage" => class(0x01, None, None),
        "nvme" => class(0x01, Some(0x08), Some(0x02)),
        "ahci" => class(0x01, Some(0x06), Some(0x01)),
        "network" => class(0x02, None, None),
        "display" => class(0x03, None, None),
        // The transitional device and the modern one.
        "virtio-blk" => virtio([0x1001, 0x1042]),
        "virtio-net" => virtio([0x1000, 0x1041]),
        _ => vec![address(text).ok_or_else(|| {
            format!(
                "\"{text}\" names no device; use com1 to com4, nvme, virtio-blk, ahci, storage, virtio-net, network, display, \
                 \"id:8086:10d3\" (vendor and device), \"class:0108\" (class and subclass) or \"at:0000:00:03.0\" (place)"
            )
        })?],
    })
}

fn address(text: &str) -> Option<Device> {
    let (form, rest) = text.split_once(':')?;
    let byte = |digits: &str| u8::from_str_radix(digits, 16).ok();
    let word = |digits: &str| {
        if digits.len() == 4 {
            u16::from_str_radix(digits, 16).ok()
        } else {
            None
        }
    };
    match form {
        "id" => {
            let (vendor, device) = rest.split_once(':')?;
            Some(Device::PciId {
                vendor: word(vendor)?,
                device: word(device)?,
            })
        }
        "class" if rest.is_ascii() && matches!(rest.len(), 2 | 4 | 6) => Some(Device::PciClass {
            class: byte(&rest[..2])?,
            subclass: rest
                .get(2..4)
                .map(byte)
                .map_or(Some(None), |byte| byte.map(Some))?,
            interface: rest
                .get(4..6)
                .map(byte)
                .map_or(Some(None), |byte| byte.map(Some))?,
        }),
        "at" => {
            let (rest, function) = rest.rsplit_once('.')?;
            let mut parts = rest.rsplit(':');
            let (device, bus) = (byte(parts.next()?)?, byte(parts.next()?)?);
            let segment = parts.next().map_or(Some(0), word)?;
            let function = byte(function)?;
            let fits = parts.next().is_none() && device < 32 && function < 8;
            fits.then_some(Device::PciAddress {
                segment,
                bus,
                device,
                function,
            })
        }
        _ => None,
    }
}

/// Checks the name of a block device in a guest: `xvda` to `xvdp`, each of which has 15 partitions of its own.
pub(super) fn disk_name(text: &str) -> Result<(), String> {
    match text.strip_prefix("xvd").map(str::as_bytes) {
        Some([b'a'..=b'p']) => Ok(()),
        _ => Err(format!("\"{text}\" is no disk name; use xvda, xvdb … xvdp")),
    }
}

/// Checks a domain's name.
pub(super) fn domain_name(text: &str) -> Result<(), String> {
    let letters = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if letters && (1..=31).contains(&text.len()) && !text.starts_with('-') {
        Ok(())
    } else {
        Err(format!(
            "\"{text}\" cannot name a domain; use letters, digits and dashes, at most 31"
        ))
    }
}

/// Checks the key of a free option, which becomes the last part of a xenstore path.
pub(super) fn option_key(text: &str) -> Result<(), String> {
    let letters = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_@".contains(&byte));
    if letters && (1..=64).contains(&text.len()) {
        Ok(())
    } else {
        Err(format!(
            "\"{text}\" cannot name an option; use letters, digits, dashes and underscores"
        ))
    }
}

/// The Debian package that `debian:PACKAGE` names, if it has that form.
pub(super) fn debian(text: &str) -> Option<Result<String, String>> {
    text.strip_prefix("debian:")
        .map(|package| package_name(package).map(|()| package.to_string()))
}

/// Checks the name of a Debian package.
pub(super) fn package_name(text: &str) -> Result<(), String> {
    let letters = text
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte));
    if letters && text.len() >= 2 && !text.starts_with(['-', '+', '.']) {
        Ok(())
    } else {
        Err(format!("\"{text}\" cannot name a Debian package"))
    }
}
