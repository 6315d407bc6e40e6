//! Names of ring layouts that a frontend writes to its `protocol` node, of `io/protocols.h`.

strings! {
    "Value of the `protocol` node; a missing node means the native one." {
        XEN_IO_PROTO_ABI_X86_32 = "x86_32-abi",
        XEN_IO_PROTO_ABI_X86_64 = "x86_64-abi",
        XEN_IO_PROTO_ABI_ARM = "arm-abi",
        XEN_IO_PROTO_ABI_NATIVE = "x86_64-abi",
    }
}
