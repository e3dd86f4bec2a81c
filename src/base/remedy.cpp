// SPDX-License-Identifier: Apache-2.0
// The texts of remedies, in one table.
#include "base/remedy.hpp"

#include <algorithm>
#include <array>

namespace postern {
namespace {

struct Words {
  RemedyCode code;
  std::string_view name;
  std::string_view text;  // "{0}" stands for the first argument; no other braces
};

// A code and its text; the name is that of the code.
#define POSTERN_WORDS(code, text) \
  Words { RemedyCode::code, #code, text }

constexpr std::array table = {
    POSTERN_WORDS(other, "{0}"),
    POSTERN_WORDS(try_again, "try again"),
    POSTERN_WORDS(run_as_root, "run as root to change a device's driver"),
    POSTERN_WORDS(see_kernel_log, "see the kernel's log (dmesg) for the reason"),
    POSTERN_WORDS(see_causes, "see why each backend cannot attach {0}"),
    POSTERN_WORDS(find_holder, "find who has it open with \"fuser -v {0}\" as root"),
    POSTERN_WORDS(raise_open_files_limit, "raise the limit of open files (\"ulimit -n\")"),
    POSTERN_WORDS(raise_locked_memory_limit, "raise RLIMIT_MEMLOCK (\"ulimit -l\") or run with CAP_IPC_LOCK"),
    POSTERN_WORDS(raise_locked_memory_limit_to,
                  "raise RLIMIT_MEMLOCK (\"ulimit -l {0}\"; if the shell refuses that, \"sudo prlimit -p $$ "
                  "-l$(({0}*1024))\" in it; in a systemd unit, LimitMEMLOCK={0}K) or run with CAP_IPC_LOCK"),
    POSTERN_WORDS(reserve_huge_pages, "reserve more of them in /sys/kernel/mm/hugepages"),
    POSTERN_WORDS(use_existing_huge_page_size, "use a size that has a directory in /sys/kernel/mm/hugepages"),
    POSTERN_WORDS(mount_proc, "mount /proc"),
    POSTERN_WORDS(make_event_nonblocking, "create it with EFD_NONBLOCK"),

    POSTERN_WORDS(remove_kernel_parameter, "remove \"{0}\" from the kernel's command line, and reboot"),
    POSTERN_WORDS(remove_kernel_parameter_word, "remove \"{0}\" from \"{1}\" on the kernel's command line, and reboot"),
    POSTERN_WORDS(boot_with_intel_iommu, "boot with \"intel_iommu=on\" on the kernel's command line"),
    POSTERN_WORDS(see_log_for_iommu,
                  "the firmware describes {0}; see in the kernel's log why it is not used (\"dmesg | grep {1}\")"),
    POSTERN_WORDS(turn_iommu_on, "turn on {0} in the firmware's setup"),
    POSTERN_WORDS(turn_vtd_on_without_dmar,
                  "the firmware describes no VT-d (no DMAR in /sys/firmware/acpi/tables): turn on VT-d in its setup"),
    POSTERN_WORDS(describe_iommu,
                  "the firmware must describe an IOMMU (ACPI or device tree), and the kernel must have its driver"),
    POSTERN_WORDS(use_kernel_with_iommu_driver, "each {0} has an IOMMU: use a kernel that is built with {1}"),
    POSTERN_WORDS(pass_through_with_xen,
                  "this is Xen's dom0, where Xen keeps the IOMMU to itself: pass devices through with Xen (\"xl "
                  "pci-assignable-add\"), or boot Linux without Xen"),
    POSTERN_WORDS(use_host_without_xen,
                  "this is a Xen guest, and Xen gives its guests no IOMMU: use VFIO on a host without Xen"),
    POSTERN_WORDS(use_host_with_iommu, "this is {0}, which has no IOMMU: use {1}"),
    POSTERN_WORDS(give_guest_iommu, "this is a virtual machine: give it a virtual IOMMU ({0})"),
    POSTERN_WORDS(try_another_slot, "other devices are behind an IOMMU, but {0} is not: try another slot"),
    POSTERN_WORDS(turn_remapping_on, "turn on interrupt remapping"),
    POSTERN_WORDS(turn_remapping_on_in_vm,
                  "in a virtual machine, give its IOMMU interrupt remapping (QEMU: -device intel-iommu,intremap=on)"),
    POSTERN_WORDS(turn_remapping_on_in_firmware,
                  "turn on interrupt remapping in the firmware's setup (QEMU: -device intel-iommu,intremap=on); the "
                  "kernel's log shows why it is off (\"dmesg | grep -e DMAR-IR -e AMD-Vi\")"),
    POSTERN_WORDS(accept_unsafe_interrupts, "only if you trust the device and its driver: \"echo Y > {0}\""),

    POSTERN_WORDS(list_devices, "list the devices of this host, in /sys/bus/*/devices or with list_pci_functions()"),
    POSTERN_WORDS(bind_to_vfio_driver, "bind {0} to a VFIO driver (bind_to_driver())"),
    POSTERN_WORDS(bind_if_spare, "if this host can spare {0}, bind it to a VFIO driver (bind_to_driver())"),
    POSTERN_WORDS(bind_whole_group,
                  "a group is passed through as a whole: bind its other members too, if this host can spare them"),
    POSTERN_WORDS(use_slot_with_acs, "move the device to another slot whose port has ACS, or use another device"),
    POSTERN_WORDS(keep_driver, "{0} must keep its driver: {1}"),
    POSTERN_WORDS(load_driver, "load it with \"modprobe {0}\""),
    POSTERN_WORDS(load_module, "load the module with \"modprobe {0}\"; the kernel needs {1}"),
    POSTERN_WORDS(bind_for_node,
                  "the kernel creates the node when a device of it is bound to a VFIO driver, if it is built with {0}"),
    POSTERN_WORDS(add_node,
                  "the kernel has it ({0}), but its node is missing here: pass it to this container (\"--device "
                  "{1}\"), or let devtmpfs or udev create it"),
    POSTERN_WORDS(make_node, "or create it with \"mknod {0} c {1} {2}\""),
    POSTERN_WORDS(make_node_and_folder, "or create it with \"mkdir -p {0} && mknod {1} c {2} {3}\""),
    POSTERN_WORDS(give_node_to_user,
                  "run as root, or make this user its owner: \"chown {0} {1}\" as root (permanently: a udev rule with "
                  "OWNER=\"{0}\")"),
    POSTERN_WORDS(allow_in_device_cgroup,
                  "allow it in the container (\"--device {0}\") or the systemd unit (\"DeviceAllow={0} rw\") of this "
                  "process"),
    POSTERN_WORDS(
        refresh_node,
        "read the device from sysfs again; if the error remains, {0} is left over from an earlier device: remove it, "
        "and let udev create it again (\"udevadm trigger\")"),
    POSTERN_WORDS(give_fd_of_node, "give a descriptor of {0}, or none to have it opened"),
    POSTERN_WORDS(
        read_device_again,
        "read {0} again (find_host_device(), find_pci_function()): bind_and_read() binds a device and reads it"),
    POSTERN_WORDS(use_kernel_with_cdevs,
                  "use a kernel with CONFIG_VFIO_DEVICE_CDEV (6.6 or newer), or another backend"),
    POSTERN_WORDS(use_kernel_with_option, "use a kernel with {0}"),
    POSTERN_WORDS(adopt_kvm_device, "give its descriptor to KvmVfioDevice::adopt()"),
    POSTERN_WORDS(make_sysfs_writable,
                  "change the driver outside of the container, or make its /sys writable (\"mount -o remount,rw /sys\" "
                  "as root, if that is allowed)"),
    POSTERN_WORDS(make_run_writable, "make /run writable"),
    POSTERN_WORDS(stop_other_binder,
                  "another program changes its driver, too: find out which, and let only one of them bind the device"),
    POSTERN_WORDS(discard_binding, "discard the stored binding: its device was removed"),
    POSTERN_WORDS(use_devices_behind_bridge, "pass through the devices behind it instead"),
    POSTERN_WORDS(wake_device,
                  "wake it (\"echo on > {0}/power/control\"); if that does not help, remove it and scan for it again "
                  "(\"echo 1 > {0}/remove\", \"echo 1 > /sys/bus/pci/rescan\"), or turn the machine off and on again"),
    POSTERN_WORDS(write_pci_address,
                  "write it like 0000:00:01.0 or 00:01.0 (hexadecimal; device to 1f, function to 7)"),
    POSTERN_WORDS(write_vf_token, "write one like bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3 (\"uuidgen\" makes one)"),
    POSTERN_WORDS(give_vf_token, "set AttachOptions::vf_token to that token"),
    POSTERN_WORDS(omit_vf_token, "omit the token, or use a backend that opens devices through groups"),

    POSTERN_WORDS(use_backend, "use one of: {0}"),
    POSTERN_WORDS(use_other_backend, "use another backend (backends() lists them)"),
    POSTERN_WORDS(build_all_backends, "build with -DPOSTERN_BACKENDS=all, or use one of: {0}"),
    POSTERN_WORDS(omit_version, "omit the version"),
    POSTERN_WORDS(attach_device_first, "attach a device first"),
    POSTERN_WORDS(attach_to_new_container, "attach the device to a new container"),
    POSTERN_WORDS(attach_to_that_container, "attach the device to that container (AttachOptions::container)"),
    POSTERN_WORDS(attach_there_or_detach_group, "attach to that container, or detach the group's devices there"),
    POSTERN_WORDS(attach_anew, "detach the device, which loses its state, and attach it to that container"),
    POSTERN_WORDS(open_container_in_this_process, "open a container in this process"),
    POSTERN_WORDS(detach_first, "detach it first"),
    POSTERN_WORDS(detach_devices_first, "detach them first"),
    POSTERN_WORDS(detach_group_mate, "detach {0}, move this device, and then attach {0} to the new container, too"),
    POSTERN_WORDS(use_one_thread, "use a container from one thread at a time: lock a mutex around its calls"),
    POSTERN_WORDS(keep_fds_private, "do not use the container's fds outside of this library"),
    POSTERN_WORDS(give_container_own_fd, "give each Container a descriptor of its own of /dev/vfio/vfio"),
    POSTERN_WORDS(give_iommufd_of_device,
                  "give the iommufd that it is bound to in ContainerOptions::fd, and its id there"),
    POSTERN_WORDS(open_both_with_one_iommufd,
                  "open both containers without ContainerOptions::fd, or both with the same, for the next time"),
    POSTERN_WORDS(omit_iommufd_id, "give it without an id, for attach() to bind it"),
    POSTERN_WORDS(attach_with_its_iommufd, "attach to a container of that iommufd, or open the device's node anew"),
    POSTERN_WORDS(use_iommufd_or_disable_huge_pages, "use iommufd, or load vfio_iommu_type1 with disable_hugepages=1"),

    POSTERN_WORDS(unmap_first, "unmap it first"),
    POSTERN_WORDS(unmap_whole_mappings, "unmap whole mappings; map in the pieces in which you unmap"),
    POSTERN_WORDS(align_mapping, "align iova, {0} and length to it"),
    POSTERN_WORDS(choose_usable_iova, "choose an iova within them, for instance with IovaAllocator"),
    POSTERN_WORDS(allow_more_mappings,
                  "map larger pieces, or raise the module parameter vfio_iommu_type1.dma_entry_limit"),
    POSTERN_WORDS(map_accessible_memory, "map memory that exists, and that this process may access in that way itself"),
    POSTERN_WORDS(map_bar_as_dma_buf,
                  "iommufd takes a BAR as a dma-buf only (export_dma_buf()), and type1 by its address"),
    POSTERN_WORDS(map_smaller_pieces, "map smaller pieces"),
    POSTERN_WORDS(map_fewer_ranges, "map fewer, larger ranges, or have the IOMMU track them"),
    POSTERN_WORDS(map_file_by_address, "map the file with mmap(2), and give that address"),
    POSTERN_WORDS(map_file_of_memory, "map a memfd, or a file on tmpfs or hugetlbfs"),
    POSTERN_WORDS(map_bar_by_address, "use iommufd, or map the BAR by its address (Device::map_region())"),
    POSTERN_WORDS(
        turn_bar_on,
        "turn on memory decoding of the dma-buf's device (PciDevice::enable_memory()), and leave low power; if "
        "it was closed, export another dma-buf (export_dma_buf())"),
    POSTERN_WORDS(map_read_only, "map it for reading (Access::read)"),
    POSTERN_WORDS(map_for_direction, "map the data for this direction"),
    POSTERN_WORDS(extend_file, "extend the file first, with ftruncate(2)"),
    POSTERN_WORDS(open_file_for_reading, "open it for reading"),
    POSTERN_WORDS(open_file_for_reading_and_writing, "open it for reading and writing"),
    POSTERN_WORDS(use_page_multiples, "use multiples of {0}"),
    POSTERN_WORDS(free_iovas, "free or unmap some, or use smaller pieces"),
    POSTERN_WORDS(stay_in_usable_range, "stay inside one usable range"),
    POSTERN_WORDS(place_guest_memory_in_ranges,
                  "place the guest's memory within the usable ranges, with a hole for what lies between them"),
    POSTERN_WORDS(let_allocator_choose, "let allocate() choose"),
    POSTERN_WORDS(free_once, "free each allocation once"),
    POSTERN_WORDS(begin_transaction, "begin another"),
    POSTERN_WORDS(end_transaction, "commit or destroy it first"),

    POSTERN_WORDS(start_tracking, "start it first"),
    POSTERN_WORDS(stop_tracking, "stop dirty tracking first"),
    POSTERN_WORDS(omit_dirty_source, "omit the source; memory of untracked devices is then reported dirty"),
    POSTERN_WORDS(query_mapped_ranges, "query mapped ranges only; for_each_mapping() lists them"),

    POSTERN_WORDS(turn_dma_windows_on, "turn on dynamic DMA windows (QEMU: spapr-pci-host-bridge.ddw=on)"),
    POSTERN_WORDS(boot_for_dma_windows,
                  "reboot the host; if the error returns, the hypervisor cannot create a window for all of its memory: "
                  "for QEMU, use \"-m ...,maxmem=...\" and leave \"ddw\" on"),
    POSTERN_WORDS(create_window, "create a window first"),
    POSTERN_WORDS(create_window_with_page_size, "create a window with the page size that you need"),
    POSTERN_WORDS(create_smaller_window, "create a smaller window, or one with larger pages"),
    POSTERN_WORDS(choose_window_page_size, "choose one of these"),
    POSTERN_WORDS(choose_window_size, "request {0}"),
    POSTERN_WORDS(omit_window_levels, "omit the levels, to use {0}"),
    POSTERN_WORDS(remove_window, "remove one first"),
    POSTERN_WORDS(remove_default_window, "remove the default window first, and create a smaller one if needed"),
    POSTERN_WORDS(remove_64bit_window, "remove the 64-bit window first"),
    POSTERN_WORDS(map_in_default_window, "map within the default window"),
    POSTERN_WORDS(use_spapr_version_2, "use version 2, which counts only registered memory"),
    POSTERN_WORDS(use_hugetlb_memory, "use hugetlb memory (MAP_HUGETLB), or a window with smaller pages"),
    POSTERN_WORDS(register_before_mapping, "register memory once, before mapping it"),
    POSTERN_WORDS(register_in_both_containers,
                  "register the same memory in both, before mapping, with Preregistration::add()"),

    POSTERN_WORDS(attach_again, "attach it again"),
    POSTERN_WORDS(attach_too, "attach {0} in this process too"),
    POSTERN_WORDS(detach_if_requested, "detach the device if PciInterrupt::request was signalled; otherwise try again"),
    POSTERN_WORDS(reset_function, "reset only the function, if the kernel can reset it"),
    POSTERN_WORDS(read_reset_set_again, "read the set again"),
    POSTERN_WORDS(reset_and_open_again, "reset {0} (Device::reset()) and open it again"),
    POSTERN_WORDS(open_again, "open it again"),
    POSTERN_WORDS(turn_machine_off_and_on, "turn the machine off and on again"),
    POSTERN_WORDS(destroy_other_owner, "destroy that one first"),
    POSTERN_WORDS(find_bar_holder,
                  "find the driver with \"grep -A 4 {0} /proc/iomem\"; for a boot display, boot with "
                  "\"initcall_blacklist=sysfb_init\", or use another one"),
    POSTERN_WORDS(use_read_and_write, "use read() and write() for the rest"),
    POSTERN_WORDS(use_interrupt_set, "use that set, or destroy it first"),
    POSTERN_WORDS(enable_interrupts_together, "disable them, then enable all that you need in one call"),
    POSTERN_WORDS(enable_interrupt_first, "enable it first"),
    POSTERN_WORDS(enable_interrupts_again, "enable them again"),
    POSTERN_WORDS(enable_instead_of_notifying, "enable interrupts of the device with enable()"),
    POSTERN_WORDS(turn_vectors_off, "turn vectors off with {0}"),
    POSTERN_WORDS(disable_instead_of_masking, "disable the interrupt, or mask it in the device"),
};
#undef POSTERN_WORDS

// Whether the text has an argument, "{0}" to "{9}", at this brace.
constexpr bool is_argument(std::string_view text, std::size_t brace) noexcept {
  return brace + 2 < text.size() && text[brace] == '{' && text[brace + 1] >= '0' && text[brace + 1] <= '9' &&
         text[brace + 2] == '}';
}

constexpr std::size_t arguments_in(std::string_view text) noexcept {
  std::size_t count = 0;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (is_argument(text, at)) count = std::max(count, static_cast<std::size_t>(text[at + 1] - '0') + 1);
  }
  return count;
}

// Texts are found by the number of their code. A text uses all arguments of its code, or none: the library's text of a
// remedy may not name the device.
constexpr bool table_is_complete() noexcept {
  for (std::size_t at = 0; at < table.size(); ++at) {
    const Words& words = table[at];
    if (static_cast<std::size_t>(words.code) != at || words.text.empty()) return false;
    if (words.code != RemedyCode::bind_whole_group && arguments_in(words.text) != argument_count(words.code))
      return false;
  }
  return table.size() == remedy_count;
}
static_assert(table_is_complete(), "every RemedyCode has a text, in order, with as many arguments as it takes");

const Words& words_of(RemedyCode code) noexcept {
  const auto at = static_cast<std::size_t>(code);
  return table[at < table.size() ? at : 0];
}

}  // namespace

std::string_view to_string(RemedyCode code) noexcept { return words_of(code).name; }

std::string Remedy::text() const { return text(words_of(code).text); }

std::string Remedy::text(std::string_view pattern) const {
  std::string words;
  for (std::size_t at = 0; at < pattern.size(); ++at) {
    const std::size_t index = is_argument(pattern, at) ? static_cast<std::size_t>(pattern[at + 1] - '0') : 10;
    if (index < arguments.size()) {
      words += arguments[index];
      at += 2;
    } else {
      words += pattern[at];
    }
  }
  return words;
}

// Out of line, like the rest of an error's construction: there are hundreds of places that make one, and none is fast.
Remedies::Remedies() noexcept = default;
Remedies::~Remedies() = default;
Remedies::Remedies(const Remedies& other) = default;
Remedies& Remedies::operator=(const Remedies& other) = default;
Remedies::Remedies(Remedies&&) noexcept = default;
Remedies& Remedies::operator=(Remedies&&) noexcept = default;

Remedies::Remedies(Remedy remedy) { list_.push_back(std::move(remedy)); }
Remedies::Remedies(RemedyCode code) : Remedies(Remedy{.code = code, .arguments = {}}) {}
Remedies::Remedies(std::initializer_list<Remedy> remedies) : list_(remedies) {}
Remedies::Remedies(const char* text) : Remedies(std::string(text)) {}

Remedies::Remedies(std::string text) {
  if (!text.empty()) list_.push_back({.code = RemedyCode::other, .arguments = {std::move(text)}});
}

Remedies& Remedies::add(const Remedies& more) {
  list_.insert(list_.end(), more.begin(), more.end());
  return *this;
}

bool Remedies::contains(RemedyCode code) const noexcept {
  return std::any_of(begin(), end(), [code](const Remedy& remedy) { return remedy.code == code; });
}

std::string Remedies::text() const {
  std::string words;
  for (const Remedy& remedy : list_) words += (words.empty() ? "" : "; ") + remedy.text();
  return words;
}

}  // namespace postern
