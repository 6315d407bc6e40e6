//! The whole way: a guest's ring, the backend, a driver, and a fake device that follows the bus addresses.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;

use proptest::prelude::*;
use unikernel_rt::grant::Access;
use xen_abi::io::blkif::*;

use super::bench::{Guest, Server, pattern};
use crate::backend::turn;
use crate::device::BlockDevice;
use crate::nvme::{self, fake::FakeController};
use crate::testing::{MemoryDisk, TestClock};
use crate::virtio::{VirtioDisk, fake::FakeDevice};

const SECTORS: u64 = 2048;

/// Looks at a medium.
type Content = Box<dyn Fn() -> Vec<u8>>;

fn devices(virtio: bool) -> (Vec<Box<dyn BlockDevice>>, Content) {
    let clock = Rc::new(TestClock::default());
    if virtio {
        let device = FakeDevice::new(SECTORS);
        let disk =
            VirtioDisk::start("virtio", device.clone(), Box::new(|| {}), Box::new(|| {}), clock).unwrap();
        (
            vec![Box::new(disk)],
            Box::new(move || device.0.borrow().data.clone()),
        )
    } else {
        let controller = FakeController::new(&[(SECTORS, 9)]);
        let disks = nvme::start("nvme", controller.clone(), Box::new(|_| {}), clock).unwrap();
        let devices = disks
            .into_iter()
            .map(|disk| Box::new(disk) as Box<dyn BlockDevice>)
            .collect();
        (
            devices,
            Box::new(move || controller.0.borrow().namespaces[0].data.clone()),
        )
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Segments of any form, as a frontend may send them, arrive in order and unchanged.
    #[test]
    fn scattered_segments_reach_the_medium(
        parts in prop::collection::vec((0u8..8, 0u8..8), 1..120),
        sector in 0u64..1000,
        virtio: bool,
        persistent: bool,
    ) {
        let mut server = Server::new(MemoryDisk::new(8));
        let mut guest = Guest::new(&server, 5, "nvme0", "w");
        let (devices, content) = devices(virtio);
        server.start_with(devices);
        guest.connect(&mut server, persistent);

        let (list, list_reference) = guest.page(Access::ReadWrite);
        let mut expected = Vec::new();
        let mut keep = Vec::new();
        for (index, &(one, other)) in parts.iter().enumerate() {
            let (first_sect, last_sect) = (one.min(other), one.max(other));
            let (page, reference) = guest.page(Access::ReadWrite);
            page.copy_in(0, &pattern(index as u8)).unwrap();
            let segment = BlkifRequestSegment { gref: reference.0, first_sect, last_sect, ..Default::default() };
            list.write(index * 8, &segment).unwrap();
            expected.extend_from_slice(&pattern(index as u8)[usize::from(first_sect) * 512..usize::from(last_sect + 1) * 512]);
            keep.push(page);
        }
        let mut request = BlkifRequestIndirect {
            operation: BLKIF_OP_INDIRECT,
            indirect_op: BLKIF_OP_WRITE,
            nr_segments: parts.len() as u16,
            sector_number: sector,
            ..Default::default()
        };
        request.indirect_grefs[0] = list_reference.0;
        let write = guest.push(request.into());
        let mut responses = Vec::new();
        for _ in 0..10 {
            turn(server.bus()).unwrap();
            responses.extend(guest.responses());
        }
        prop_assert_eq!(responses, vec![(write, BLKIF_OP_WRITE, 0)]);
        let start = sector as usize * 512;
        prop_assert_eq!(&content()[start..start + expected.len()], &expected[..]);

        // And back into the same places, which were cleared.
        for page in &keep {
            page.fill(0, 4096, 0).unwrap();
        }
        request.indirect_op = BLKIF_OP_READ;
        let read = guest.push(request.into());
        let mut responses = Vec::new();
        for _ in 0..10 {
            turn(server.bus()).unwrap();
            responses.extend(guest.responses());
        }
        prop_assert_eq!(responses, vec![(read, BLKIF_OP_READ, 0)]);
        for (index, (page, &(one, other))) in keep.iter().zip(&parts).enumerate() {
            let range = usize::from(one.min(other)) * 512..usize::from(one.max(other) + 1) * 512;
            let mut bytes = vec![0; range.len()];
            page.copy_out(range.start, &mut bytes).unwrap();
            prop_assert_eq!(&bytes[..], &pattern(index as u8)[range]);
        }
    }
}
