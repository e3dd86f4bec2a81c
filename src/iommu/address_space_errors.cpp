// SPDX-License-Identifier: Apache-2.0
// AddressSpace's error messages.
#include "iommu/address_space_errors.hpp"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>

#include "base/remedy.hpp"
#include "base/words.hpp"
#include "host/requirements.hpp"
#include "kernel/ioctl.hpp"

namespace postern {
namespace {

constexpr const char* past_the_end = "it runs past the last address, 2^64-1";

std::string mapping_text(const AddressSpace& space, Iova iova, std::uint64_t length) {
  return fmt::format("map {}+{} into container {}", to_string(iova), size_text(length), space.name());
}

std::string unmap_text(const AddressSpace& space, IovaRange range) {
  return fmt::format("unmap {} from container {}", to_string(range), space.name());
}

// Whether the memory of a mapping exists, as far as can be seen. It would have been pinned, so it may be faulted in.
bool is_there(Kernel& kernel, const Mapping& mapping) {
  const Memory& memory = mapping.memory;
  if (memory.kind() == Memory::Kind::address)
    return kernel.madvise(memory.address(), memory.length(), MADV_POPULATE_READ) >= 0;
  FileStatus status;
  return kernel.fstat(memory.file()->get(), status) >= 0 && memory.offset() + memory.length() <= status.size;
}

// Whether the errno means something particular where a dma-buf is mapped.
bool explain_dma_buf(CallFailed& what) {
  switch (-what.result) {
    case ENODEV:
      what.kind = ErrorKind::no_answer;
      what.reason =
          "the dma-buf is revoked: memory decoding of its device is off, the device is in low power, or it was closed";
      what.remedy = RemedyCode::turn_bar_on;
      return true;
    case EINVAL:
    case EOPNOTSUPP:
      what.kind = ErrorKind::unsupported;
      what.reason = "the kernel maps dma-bufs only of one range of a BAR, as export_dma_buf() makes them, if at all";
      what.remedy = RemedyCode::map_bar_by_address;
      return true;
    default:
      return false;
  }
}

}  // namespace

tl::unexpected<Error> AddressSpace::Errors::not_open(std::string what) const {
  if (space_.is_copy_) {
    return refusal({.result = -ESTALE,
                    .object = std::move(what),
                    .reason = "the container belongs to the process that this one was forked from",
                    .remedy = RemedyCode::open_container_in_this_process});
  }
  return refusal({.result = -EBADF,
                  .object = std::move(what),
                  .reason = "the container was closed",
                  .remedy = RemedyCode::attach_to_new_container});
}

std::string AddressSpace::Errors::map_text(IovaRange range) const {
  return mapping_text(space_, range.first, range.length());
}

tl::unexpected<Error> AddressSpace::Errors::refuse_map(IovaRange range, const Memory& memory) const {
  const Iova iova = range.first;
  const bool is_file = memory.kind() != Memory::Kind::address;
  const std::uint64_t place = is_file ? memory.offset() : reinterpret_cast<std::uintptr_t>(memory.address());
  CallFailed what{.result = -EINVAL, .object = mapping_text(space_, iova, memory.length())};
  if (!space_.require_open({})) return not_open(what.object);
  if (space_.devices_.empty()) {
    what.result = -ENODEV;
    what.kind = ErrorKind::invalid_argument;
    what.reason = "no device is attached, so there is no IOMMU to map for";
    what.remedy = RemedyCode::attach_device_first;
  } else if (memory.length() == 0) {
    what.reason = "the length is zero";
  } else if (((iova.value | place | memory.length()) & space_.misaligned_) != 0) {
    what.reason = fmt::format("{} {:#x} is not a multiple of the IOMMU's smallest page, {}",
                              (iova.value & space_.misaligned_) != 0 ? "iova"
                              : (place & space_.misaligned_) != 0    ? (is_file ? "offset" : "address")
                                                                     : "length",
                              (iova.value & space_.misaligned_) != 0 ? iova.value
                              : (place & space_.misaligned_) != 0    ? place
                                                                     : memory.length(),
                              size_text(space_.misaligned_ + 1));
    what.remedy = remedy<RemedyCode::align_mapping>(is_file ? "offset" : "address");
  } else if (range.last < range.first || place + memory.length() <= place) {
    what.result = -EOVERFLOW;
    what.reason = range.last < range.first ? past_the_end : "the memory runs past the last address, 2^64-1";
  } else if (space_.mappings_left() != 0) {
    what.result = -ERANGE;
    what.reason = fmt::format("outside the usable ranges {}", ranges_text(space_.limits_.usable_ranges));
    what.remedy = RemedyCode::choose_usable_iova;
  } else {
    what.result = -ENOSPC;
    what.reason = fmt::format("all {} mappings that the kernel allows are in use", *space_.limits_.mapping_limit);
    what.remedy = RemedyCode::allow_more_mappings;
  }
  return refusal(std::move(what));
}

tl::unexpected<Error> AddressSpace::Errors::refuse_access(Iova iova, std::uint64_t length, Access access) const {
  return refusal({.result = -EINVAL, .object = mapping_text(space_, iova, length), .reason = access_fault(access)});
}

tl::unexpected<Error> AddressSpace::Errors::refuse_overlap(IovaRange range, IovaRange taken) const {
  return refusal({.result = -EEXIST,
                  .object = mapping_text(space_, range.first, range.length()),
                  .reason = fmt::format("{} overlaps {}, which is mapped", to_string(range), to_string(taken)),
                  .remedy = RemedyCode::unmap_first});
}

tl::unexpected<Error> AddressSpace::Errors::refuse_anywhere(std::uint64_t length, std::string reason) const {
  return refusal({.result = -EINVAL,
                  .object = fmt::format("map {} into container {}", size_text(length), space_.name()),
                  .reason = std::move(reason)});
}

tl::unexpected<Error> AddressSpace::Errors::no_free_range(std::uint64_t length, IovaRange within) const {
  return refusal({.result = -ENOSPC,
                  .object = fmt::format("map {} into container {}", size_text(length), space_.name()),
                  .reason = fmt::format("no free range of this length in {}, within the usable ranges {}",
                                        to_string(within), ranges_text(space_.limits_.usable_ranges)),
                  .remedy = RemedyCode::free_iovas});
}

tl::unexpected<Error> AddressSpace::Errors::map_failure(CallResult failed, IovaRange range, const void* address) const {
  const std::uint64_t length = range.length();
  CallFailed what{.result = failed.result, .object = mapping_text(space_, range.first, length)};
  const std::string_view call = failed.call != nullptr ? failed.call : "";
  const auto file = space_.files_.find(range.first);
  const bool is_file = file != space_.files_.end();
  if (is_file && file->second.memory.kind() == Memory::Kind::dma_buf && explain_dma_buf(what))
    return call_failure(call, std::move(what));
  auto known = space_.backend().explain_map(failed, range, address);
  if (!known.reason.empty()) {
    what.kind = known.kind;
    what.reason = std::move(known.reason);
    what.remedy = std::move(known.remedy);
    return call_failure(call, std::move(what));
  }
  switch (-failed.result) {
    case ENOMEM:
      explain_locked_memory(what, space_.kernel(), length, space_.backend().locked_memory_counter());
      break;
    case EFAULT:
      what.reason = is_file ? "the file's pages cannot be pinned for this access"
                            : fmt::format("memory at {} cannot be pinned for this access", address);
      what.remedy = RemedyCode::map_accessible_memory;
      what.remedy.add(known.remedy);
      break;
    case EEXIST:
    case EADDRINUSE:
      what.reason = "the kernel has a mapping there that this container did not create";
      what.remedy = RemedyCode::keep_fds_private;
      break;
    case EINVAL:
      if (is_file) {
        what.reason = "the kernel maps only files in memory: memfds, and files on tmpfs and hugetlbfs";
        what.kind = ErrorKind::unsupported;
        what.remedy = RemedyCode::map_file_by_address;
      }
      break;
    case ENOSPC:
      what.reason = fmt::format("the kernel accepts no more mappings; {} are in use", space_.mappings_.size());
      what.remedy = RemedyCode::allow_more_mappings;
      break;
    default:
      break;
  }
  return call_failure(call, std::move(what));
}

// With its first device an IOMMU pins what is mapped, and the kernel does not say what it cannot pin: names the first
// mapping whose memory is no longer there.
Error AddressSpace::Errors::connect_failure(const Error& error) const {
  constexpr std::array codes{EFAULT, EINVAL, ENOMEM, ENODEV};
  if (error.refused() || std::find(codes.begin(), codes.end(), error.code()) == codes.end()) return error;
  std::string lost;
  space_.mappings_.for_each([&](const MappingRecord& record) {
    if (lost.empty() && !is_there(space_.kernel(), space_.mapping_of(record))) lost = to_string(record.range);
  });
  if (lost.empty()) return error;
  Error::Details details = error.details();
  details.reason = fmt::format("the memory mapped at {} is no longer there", lost);
  details.remedy = RemedyCode::unmap_first;
  return Error(std::move(details));
}

tl::unexpected<Error> AddressSpace::Errors::unmap_failure(int result, IovaRange range) const {
  return unmap_failure(result, unmap_text(space_, range));
}

tl::unexpected<Error> AddressSpace::Errors::unmap_failure(int result, std::string object) const {
  CallFailed what{.result = result, .object = std::move(object)};
  if (result < 0) return call_failure(space_.backend().traits().unmap, std::move(what));
  what.result = -ENOENT;
  what.kind = ErrorKind::stale;
  what.reason = fmt::format("{} unmapped nothing", space_.backend().traits().unmap);
  what.remedy = RemedyCode::keep_fds_private;
  return refusal(std::move(what));
}

tl::unexpected<Error> AddressSpace::Errors::refuse_unmap(IovaRange range, std::uint64_t length) const {
  if (!space_.require_open({})) return not_open(unmap_text(space_, range));
  CallFailed what{
      .result = -EINVAL,
      .object = fmt::format("unmap {}+{} from container {}", to_string(range.first), size_text(length), space_.name())};
  if (length == 0) {
    what.reason = "the length is zero";
  } else if (((range.first.value | length) & space_.misaligned_) != 0) {
    what.reason = fmt::format("iova and length must be multiples of the IOMMU's smallest page, {}",
                              size_text(space_.misaligned_ + 1));
  } else {
    what.result = -EOVERFLOW;
    what.reason = past_the_end;
  }
  return refusal(std::move(what));
}

tl::unexpected<Error> AddressSpace::Errors::refuse_split(IovaRange range, const IovaRange* split) const {
  CallFailed what{.result = -ENOENT, .object = unmap_text(space_, range), .reason = "nothing is mapped there"};
  if (split != nullptr) {
    what.result = -EINVAL;
    what.reason = fmt::format("it would split the mapping {}", to_string(*split));
    what.remedy = RemedyCode::unmap_whole_mappings;
  }
  return refusal(std::move(what));
}

}  // namespace postern
