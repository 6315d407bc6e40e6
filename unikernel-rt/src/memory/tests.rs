use super::*;

#[test]
fn values_and_bytes_come_back() {
    let memory = SharedMemory::allocate(2).unwrap();
    memory.write(12, &0x1122_3344_5566_7788_u64).unwrap();
    assert_eq!(memory.read::<u64>(12).unwrap(), 0x1122_3344_5566_7788);
    let long: alloc::vec::Vec<u8> = (0..1001).map(|i| i as u8).collect();
    memory.copy_in(3077, &long).unwrap();
    let mut back = [0; 1001];
    memory.copy_out(3077, &mut back).unwrap();
    assert_eq!(long, back);
}

#[test]
fn ranges_are_checked() {
    let memory = SharedMemory::allocate(1).unwrap();
    assert!(memory.read::<u32>(4093).is_err());
    assert!(memory.read::<u32>(usize::MAX - 1).is_err());
    assert!(memory.load(2).is_err());
    assert!(memory.copy_in(4096, &[]).is_ok());
    assert!(memory.copy_in(4096, &[1]).is_err());
    assert!(memory.part(4000, 97).is_err());
}

#[test]
fn gathered_pages_are_one_range() {
    let (a, b) = (
        SharedMemory::allocate(1).unwrap(),
        SharedMemory::allocate(1).unwrap(),
    );
    let both = SharedMemory::gather(&[b.clone(), a.clone()]);
    both.write(4092, &0x8877_6655_4433_2211_u64).unwrap();
    assert_eq!(b.read::<u32>(4092).unwrap(), 0x4433_2211);
    assert_eq!(a.read::<u32>(0).unwrap(), 0x8877_6655);
    let third = SharedMemory::allocate(2).unwrap();
    both.copy_to(4090, &third, 4091, 20).unwrap();
    assert_eq!(third.read::<u64>(4093).unwrap(), 0x8877_6655_4433_2211);
    assert_eq!(
        both.part(4096, 4096).unwrap().read::<u32>(0).unwrap(),
        0x8877_6655
    );
}
