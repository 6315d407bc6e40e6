//! The place of the IOMMU drivers: until they exist, devices of driver domains are confined by nothing, and boot says so.
