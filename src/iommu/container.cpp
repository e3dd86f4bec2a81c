// SPDX-License-Identifier: Apache-2.0
// Container: forwards to its AddressSpace.
#include <postern/container.hpp>

#include <fmt/format.h>

#include "iommu/address_space_inline.hpp"
#include "iommu/backend_ops.hpp"
#include "iommu/file_memory.hpp"
#include "kernel/ioctl.hpp"

namespace postern {

Container::Container(std::unique_ptr<AddressSpace> space) noexcept : space_(std::move(space)) {}
Container::~Container() = default;

Result<std::shared_ptr<Container>> Container::open(Kernel& kernel, const Backend& backend,
                                                   const ContainerOptions& options) {
  return AddressSpace::open(Probed(), kernel, backend, options);
}

std::string_view Container::backend() const noexcept { return space_->name(); }
Kernel& Container::kernel() const noexcept { return space_->kernel(); }

Result<void> Container::map_bytes(Iova iova, std::span<std::byte> memory, Access access) {
  const OneThread::Use use(space_->one_thread());
  if (!use) return space_->refuse_second_thread("map");
  return space_->map(iova, memory, access);
}

Result<void> Container::refuse_access(Iova iova, std::uint64_t length, Access access) const {
  return space_->refuse_access(iova, length, access);
}

Result<void> Container::map(Iova iova, const Memory& memory, Access access) {
  if (!is_valid(access)) return refuse_access(iova, memory.length(), access);
  if (memory.kind() == Memory::Kind::address) return map_bytes(iova, {memory.address(), memory.length()}, access);
  const OneThread::Use use(space_->one_thread());
  if (!use) return space_->refuse_second_thread("map");
  ExaminedFiles files;
  auto mapped = space_->map_file(iova, memory, access, files);
  if (mapped) files.keep();
  return mapped;
}

Result<Iova> Container::map_anywhere(const Memory& memory, Access access, IovaRange within) {
  const OneThread::Use use(space_->one_thread());
  if (!use) return space_->refuse_second_thread("map_anywhere");
  return space_->map_anywhere(memory, access, within);
}

Result<void> Container::unmap(Iova iova, std::uint64_t length) {
  const OneThread::Use use(space_->one_thread());
  if (!use) return space_->refuse_second_thread("unmap");
  return space_->unmap(iova, length);
}

Result<void> Container::unmap_all() {
  const OneThread::Use use(space_->one_thread());
  if (!use) return space_->refuse_second_thread("unmap_all");
  return space_->unmap_all();
}

Result<void> Container::close() {
  const OneThread::Use use(space_->one_thread());
  if (!use) return space_->refuse_second_thread("close");
  return space_->close();
}

const std::vector<IovaRange>& Container::usable_ranges() const noexcept { return space_->limits().usable_ranges; }
std::uint64_t Container::page_sizes() const noexcept { return space_->limits().page_sizes; }
std::optional<std::uint64_t> Container::mapping_limit() const noexcept { return space_->limits().mapping_limit; }
std::optional<std::uint64_t> Container::mappings_left() const noexcept { return space_->mappings_left(); }
std::size_t Container::mapping_count() const noexcept { return space_->mappings().size(); }

std::optional<Mapping> Container::find(Iova iova) const {
  const MappingRecord* const found = space_->mappings().find(iova);
  if (found == nullptr) return std::nullopt;
  return space_->mapping_of(*found);
}

void Container::for_each_mapping(const std::function<void(const Mapping&)>& visitor) const {
  space_->mappings().for_each([&](const MappingRecord& record) { visitor(space_->mapping_of(record)); });
}

std::vector<HostDevice> Container::devices() const {
  std::vector<HostDevice> devices;
  for (const auto& device : space_->devices()) devices.push_back(device->host);
  return devices;
}

Container::Properties Container::properties() const { return space_->backend().properties(); }

void* Container::find_capability(std::string_view name) const noexcept { return space_->find_capability(name); }

Error Container::missing(std::string_view capability) const {
  return refusal({.result = -EOPNOTSUPP,
                  .object = fmt::format("container {}", backend()),
                  .reason = fmt::format("it has no {}", capability)})
      .value();
}

}  // namespace postern
