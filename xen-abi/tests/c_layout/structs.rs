//! The structures, one line each: Rust's name, C's name, and the fields. A field is followed by C's path to it where that is
//! not the same; of a path that ends in an array's element only the offset counts.

use std::mem::offset_of;

use super::Claim;

/// A structure as Rust lays it out, and what it is in C.
pub(crate) struct Layout {
    /// Rust's name.
    pub(crate) name: &'static str,
    /// The C type.
    c: &'static str,
    size: usize,
    /// The fields, without padding.
    pub(crate) fields: Vec<Field>,
}

/// A field as Rust lays it out, and what it is in C.
pub(crate) struct Field {
    /// Rust's name.
    pub(crate) name: &'static str,
    c: &'static str,
    offset: usize,
    size: usize,
}

impl Layout {
    /// Size, and offset and size of each field.
    pub(crate) fn claims(&self) -> Vec<Claim> {
        let mut claims = vec![Claim::number(
            format!("size of {}", self.name),
            format!("sizeof({})", self.c),
            self.size,
        )];
        for Field {
            name,
            c,
            offset,
            size,
        } in &self.fields
        {
            let place = format!("offset of {}.{name}", self.name);
            claims.push(Claim::number(
                place,
                format!("offsetof({}, {c})", self.c),
                *offset,
            ));
            if !c.ends_with(']') {
                let extent = format!("size of {}.{name}", self.name);
                claims.push(Claim::number(
                    extent,
                    format!("sizeof((({} *)0)->{c})", self.c),
                    *size,
                ));
            }
        }
        claims
    }
}

/// The size of the field that a function selects.
fn size_of_field<T, F>(_: impl Fn(&T) -> &F) -> usize {
    size_of::<F>()
}

fn plain(name: &'static str) -> &'static str {
    name.strip_prefix("r#").unwrap_or(name)
}

macro_rules! layouts {
    ($($($module:ident)::+ { $($name:ident = $c:literal { $($field:ident $($path:literal)?),* $(,)? })* })*) => {
        /// All structures.
        pub(crate) fn all() -> Vec<Layout> {
            let mut layouts = Vec::new();
            $({
                use xen_abi::$($module)::+::*;
                layouts.extend([$(Layout {
                    name: stringify!($name),
                    c: $c,
                    size: size_of::<$name>(),
                    fields: vec![$(Field {
                        name: plain(stringify!($field)),
                        c: [$($path,)? plain(stringify!($field))][0],
                        offset: offset_of!($name, $field),
                        size: size_of_field(|value: &$name| &value.$field),
                    }),*],
                }),*]);
            })*
            layouts
        }
    };
}

layouts! {
    xen {
        MulticallEntry = "struct multicall_entry" { op, result, args }
        VcpuTimeInfo = "struct vcpu_time_info" {
            version, pad0, tsc_timestamp, system_time, tsc_to_system_mul, tsc_shift, flags, pad1,
        }
        ArchVcpuInfo = "struct arch_vcpu_info" { cr2, pad }
        VcpuInfo = "struct vcpu_info" { evtchn_upcall_pending, evtchn_upcall_mask, evtchn_pending_sel, arch, time }
        ArchSharedInfo = "struct arch_shared_info" {
            max_pfn, pfn_to_mfn_frame_list_list, nmi_reason, p2m_cr3, p2m_vaddr, p2m_generation,
        }
        SharedInfo = "struct shared_info" {
            vcpu_info, evtchn_pending, evtchn_mask, wc_version, wc_sec, wc_nsec, wc_sec_hi, arch,
        }
    }
    arch_x86::hvm_start_info {
        HvmStartInfo = "struct hvm_start_info" {
            magic, version, flags, nr_modules, modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr,
            memmap_entries, reserved,
        }
        HvmModlistEntry = "struct hvm_modlist_entry" { paddr, size, cmdline_paddr, reserved }
        HvmMemmapTableEntry = "struct hvm_memmap_table_entry" { addr, size, r#type, reserved }
    }
    callback {
        CallbackRegister = "struct callback_register" { r#type, flags, address }
        CallbackUnregister = "struct callback_unregister" { r#type }
    }
    event_channel {
        EvtchnAllocUnbound = "struct evtchn_alloc_unbound" { dom, remote_dom, port }
        EvtchnBindInterdomain = "struct evtchn_bind_interdomain" { remote_dom, remote_port, local_port }
        EvtchnBindVirq = "struct evtchn_bind_virq" { virq, vcpu, port }
        EvtchnBindPirq = "struct evtchn_bind_pirq" { pirq, flags, port }
        EvtchnBindIpi = "struct evtchn_bind_ipi" { vcpu, port }
        EvtchnClose = "struct evtchn_close" { port }
        EvtchnSend = "struct evtchn_send" { port }
        EvtchnStatus = "struct evtchn_status" { dom, port, status, vcpu, u }
        EvtchnBindVcpu = "struct evtchn_bind_vcpu" { port, vcpu }
        EvtchnUnmask = "struct evtchn_unmask" { port }
        EvtchnReset = "struct evtchn_reset" { dom }
        EvtchnInitControl = "struct evtchn_init_control" { control_gfn, offset, vcpu, link_bits }
        EvtchnExpandArray = "struct evtchn_expand_array" { array_gfn }
        EvtchnSetPriority = "struct evtchn_set_priority" { port, priority }
        EvtchnOp = "struct evtchn_op" { cmd, u }
        EvtchnFifoControlBlock = "struct evtchn_fifo_control_block" { ready, head }
    }
    grant_table {
        GrantEntryV1 = "struct grant_entry_v1" { flags, domid, frame }
        GrantEntryHeader = "struct grant_entry_header" { flags, domid }
        GrantEntryV2 = "union grant_entry_v2" { hdr, body "__spacer[1]" }
        GrantEntryV2FullPage = "union grant_entry_v2" {
            hdr "full_page.hdr", pad0 "full_page.pad0", frame "full_page.frame",
        }
        GrantEntryV2SubPage = "union grant_entry_v2" {
            hdr "sub_page.hdr", page_off "sub_page.page_off", length "sub_page.length", frame
            "sub_page.frame",
        }
        GrantEntryV2Transitive = "union grant_entry_v2" {
            hdr "transitive.hdr", trans_domid "transitive.trans_domid", pad0 "transitive.pad0", gref
            "transitive.gref",
        }
        GnttabMapGrantRef = "struct gnttab_map_grant_ref" {
            host_addr, flags, r#ref, dom, status, handle, dev_bus_addr,
        }
        GnttabUnmapGrantRef = "struct gnttab_unmap_grant_ref" { host_addr, dev_bus_addr, handle, status }
        GnttabSetupTable = "struct gnttab_setup_table" { dom, nr_frames, status, frame_list }
        GnttabDumpTable = "struct gnttab_dump_table" { dom, status }
        GnttabTransfer = "struct gnttab_transfer" { mfn, domid, r#ref, status }
        GnttabCopyPtr = "struct gnttab_copy_ptr" { u, domid, offset }
        GnttabCopy = "struct gnttab_copy" { source, dest, len, flags, status }
        GnttabQuerySize = "struct gnttab_query_size" { dom, nr_frames, max_nr_frames, status }
        GnttabUnmapAndReplace = "struct gnttab_unmap_and_replace" { host_addr, new_addr, handle, status }
        GnttabSetVersion = "struct gnttab_set_version" { version }
        GnttabGetStatusFrames = "struct gnttab_get_status_frames" { nr_frames, dom, status, frame_list }
        GnttabGetVersion = "struct gnttab_get_version" { dom, pad, version }
        GnttabSwapGrantRef = "struct gnttab_swap_grant_ref" { ref_a, ref_b, status }
        GnttabCacheFlush = "struct gnttab_cache_flush" { a, offset, length, op }
    }
    hvm::hvm_op {
        HvmParam = "struct xen_hvm_param" { domid, pad, index, value }
        HvmPagetableDying = "struct xen_hvm_pagetable_dying" { domid, pad, gpa }
        HvmGetTime = "struct xen_hvm_get_time" { now }
        HvmXentrace = "struct xen_hvm_xentrace" { event, extra_bytes, extra }
        HvmGetMemType = "struct xen_hvm_get_mem_type" { domid, mem_type, pad, pfn }
        HvmEvtchnUpcallVector = "struct xen_hvm_evtchn_upcall_vector" { vcpu, vector }
    }
    hvm::hvm_vcpu {
        VcpuHvmX8632 = "struct vcpu_hvm_x86_32" {
            eax, ecx, edx, ebx, esp, ebp, esi, edi, eip, eflags, cr0, cr3, cr4, pad1, efer, cs_base,
            ds_base, ss_base, es_base, tr_base, cs_limit, ds_limit, ss_limit, es_limit, tr_limit, cs_ar,
            ds_ar, ss_ar, es_ar, tr_ar, pad2,
        }
        VcpuHvmX8664 = "struct vcpu_hvm_x86_64" {
            rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, rip, rflags, cr0, cr3, cr4, efer,
        }
        VcpuHvmContext = "struct vcpu_hvm_context" { mode, pad, cpu_regs }
    }
    memory {
        MemoryReservation = "struct xen_memory_reservation" {
            extent_start, nr_extents, extent_order, mem_flags, domid,
        }
        MemoryExchange = "struct xen_memory_exchange" { r#in, out, nr_exchanged }
        MemoryDomain = "struct xen_memory_domain" { domid }
        AddToPhysmap = "struct xen_add_to_physmap" { domid, size, space, idx, gpfn }
        AddToPhysmapBatch = "struct xen_add_to_physmap_batch" {
            domid, space, size, foreign_domid "u.foreign_domid", idxs, gpfns, errs,
        }
        RemoveFromPhysmap = "struct xen_remove_from_physmap" { domid, gpfn }
        MemoryMap = "struct xen_memory_map" { nr_entries, buffer }
        ForeignMemoryMap = "struct xen_foreign_memory_map" { domid, map }
        PodTarget = "struct xen_pod_target" { target_pages, tot_pages, pod_cache_pages, pod_entries, domid }
        ReservedDeviceMemory = "struct xen_reserved_device_memory" { start_pfn, nr_pages }
        MemAcquireResource = "struct xen_mem_acquire_resource" {
            domid, r#type, id, nr_frames, pad, frame, frame_list,
        }
        Vmemrange = "struct xen_vmemrange" { start, end, flags, nid }
        VnumaTopologyInfo = "struct xen_vnuma_topology_info" {
            domid, pad, nr_vnodes, nr_vcpus, nr_vmemranges, vdistance, vcpu_to_vnode, vmemrange,
        }
    }
    physdev {
        PhysdevEoi = "struct physdev_eoi" { irq }
        PhysdevPirqEoiGmfn = "struct physdev_pirq_eoi_gmfn" { gmfn }
        PhysdevIrqStatusQuery = "struct physdev_irq_status_query" { irq, flags }
        PhysdevSetIopl = "struct physdev_set_iopl" { iopl }
        PhysdevSetIobitmap = "struct physdev_set_iobitmap" { bitmap, nr_ports }
        PhysdevApic = "struct physdev_apic" { apic_physbase, reg, value }
        PhysdevIrq = "struct physdev_irq" { irq, vector }
        PhysdevMapPirq = "struct physdev_map_pirq" { domid, r#type, index, pirq, bus, devfn, entry_nr, table_base }
        PhysdevUnmapPirq = "struct physdev_unmap_pirq" { domid, pirq }
        PhysdevManagePci = "struct physdev_manage_pci" { bus, devfn }
        PhysdevRestoreMsi = "struct physdev_restore_msi" { bus, devfn }
        PhysdevPhysfn = "__typeof__(((struct physdev_pci_device_add *)0)->physfn)" { bus, devfn }
        PhysdevManagePciExt = "struct physdev_manage_pci_ext" { bus, devfn, is_extfn, is_virtfn, physfn }
        PhysdevSetupGsi = "struct physdev_setup_gsi" { gsi, triggering, polarity }
        PhysdevGetFreePirq = "struct physdev_get_free_pirq" { r#type, pirq }
        PhysdevPciMmcfgReserved = "struct physdev_pci_mmcfg_reserved" { address, segment, start_bus, end_bus, flags }
        PhysdevPciDeviceAdd = "struct physdev_pci_device_add" { seg, bus, devfn, flags, physfn }
        PhysdevPciDevice = "struct physdev_pci_device" { seg, bus, devfn }
        PhysdevDbgpOp = "struct physdev_dbgp_op" { op, bus, pci "u.pci" }
    }
    sched {
        SchedShutdown = "struct sched_shutdown" { reason }
        SchedPoll = "struct sched_poll" { ports, nr_ports, timeout }
        SchedRemoteShutdown = "struct sched_remote_shutdown" { domain_id, reason }
        SchedWatchdog = "struct sched_watchdog" { id, timeout }
        SchedPinOverride = "struct sched_pin_override" { pcpu }
    }
    vcpu {
        VcpuRunstateInfo = "struct vcpu_runstate_info" { state, state_entry_time, time }
        VcpuRegisterRunstateMemoryArea = "struct vcpu_register_runstate_memory_area" { addr }
        VcpuSetPeriodicTimer = "struct vcpu_set_periodic_timer" { period_ns }
        VcpuSetSingleshotTimer = "struct vcpu_set_singleshot_timer" { timeout_abs_ns, flags }
        VcpuRegisterVcpuInfo = "struct vcpu_register_vcpu_info" { mfn, offset, rsvd }
        VcpuGetPhysid = "struct vcpu_get_physid" { phys_id }
        VcpuRegisterTimeMemoryArea = "struct vcpu_register_time_memory_area" { addr }
    }
    version {
        CompileInfo = "struct xen_compile_info" { compiler, compile_by, compile_domain, compile_date }
        PlatformParameters = "struct xen_platform_parameters" { virt_start }
        FeatureInfo = "struct xen_feature_info" { submap_idx, submap }
        BuildIdHeader = "struct xen_build_id" { len }
    }
    io::blkif {
        BlkifRequestSegment = "struct blkif_request_segment" { gref, first_sect, last_sect }
        BlkifRequest = "struct blkif_request" { operation, nr_segments, handle, id, sector_number, seg }
        BlkifRequestDiscard = "struct blkif_request_discard" {
            operation, flag, handle, id, sector_number, nr_sectors,
        }
        BlkifRequestIndirect = "struct blkif_request_indirect" {
            operation, indirect_op, nr_segments, id, sector_number, handle, indirect_grefs,
        }
        BlkifResponse = "struct blkif_response" { id, operation, status }
    }
    io::console {
        XenconsInterface = "struct xencons_interface" { r#in, out, in_cons, in_prod, out_cons, out_prod }
    }
    io::fbif {
        XenfbUpdate = "struct xenfb_update" { r#type, x, y, width, height }
        XenfbResize = "struct xenfb_resize" { r#type, width, height, stride, depth, offset }
        XenfbRefreshPeriod = "struct xenfb_refresh_period" { r#type, period }
        XenfbOutEvent = "union xenfb_out_event" { r#type, body "pad[4]" }
        XenfbInEvent = "union xenfb_in_event" { r#type, body "pad[4]" }
        XenfbPage = "struct xenfb_page" {
            in_cons, in_prod, out_cons, out_prod, width, height, line_length, mem_length, depth, pd,
        }
    }
    io::kbdif {
        XenkbdMotion = "struct xenkbd_motion" { r#type, rel_x, rel_y, rel_z }
        XenkbdKey = "struct xenkbd_key" { r#type, pressed, keycode }
        XenkbdPosition = "struct xenkbd_position" { r#type, abs_x, abs_y, rel_z }
        XenkbdMtouch = "struct xenkbd_mtouch" { r#type, event_type, contact_id, reserved, u }
        XenkbdInEvent = "union xenkbd_in_event" { r#type, body "pad[4]" }
        XenkbdOutEvent = "union xenkbd_out_event" { r#type, body "pad[1]" }
        XenkbdPage = "struct xenkbd_page" { in_cons, in_prod, out_cons, out_prod }
    }
    io::netif {
        NetifTxRequest = "struct netif_tx_request" { gref, offset, flags, id, size }
        NetifTxResponse = "struct netif_tx_response" { id, status }
        NetifRxRequest = "struct netif_rx_request" { id, pad, gref }
        NetifRxResponse = "struct netif_rx_response" { id, offset, flags, status }
        NetifExtraInfo = "struct netif_extra_info" { r#type, flags, u }
        NetifExtraGso = "__typeof__(((struct netif_extra_info *)0)->u.gso)" { size, r#type, pad, features }
        NetifExtraHash = "__typeof__(((struct netif_extra_info *)0)->u.hash)" { r#type, algorithm, value }
        NetifCtrlRequest = "struct xen_netif_ctrl_request" { id, r#type, data }
        NetifCtrlResponse = "struct xen_netif_ctrl_response" { id, r#type, status, data }
        NetifGref = "struct xen_netif_gref" { r#ref, flags, status }
    }
    io::xs_wire {
        XsdSockmsg = "struct xsd_sockmsg" { r#type, req_id, tx_id, len }
        XenstoreDomainInterface = "struct xenstore_domain_interface" {
            req, rsp, req_cons, req_prod, rsp_cons, rsp_prod, server_features, connection, error,
        }
    }
}
