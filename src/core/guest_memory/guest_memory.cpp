// SPDX-License-Identifier: Apache-2.0
// GuestMemory and its Transaction: the public side of GuestMemory::Impl.
#include <postern/guest_memory.hpp>

#include <cerrno>

#include "core/guest_memory/impl.hpp"
#include "kernel/ioctl.hpp"

namespace postern {
namespace {

tl::unexpected<Error> ended() {
  return refusal({.result = -EINVAL,
                  .object = "change guest memory",
                  .reason = "the transaction was committed or moved",
                  .remedy = RemedyCode::begin_transaction});
}

}  // namespace

GuestMemory::Impl::Impl(Kernel& kernel, const GuestMemoryOptions& options)
    : kernel_(&kernel), backend_(options.backend), container_options_(options.container_options), kvm_(options.kvm) {}

GuestMemory::GuestMemory(Kernel& kernel, const GuestMemoryOptions& options)
    : impl_(std::make_unique<Impl>(kernel, options)) {}
GuestMemory::~GuestMemory() = default;
GuestMemory::GuestMemory(GuestMemory&&) noexcept = default;
GuestMemory& GuestMemory::operator=(GuestMemory&&) noexcept = default;

Result<GuestMemory::Transaction> GuestMemory::begin() {
  if (impl_->change() != nullptr) {
    return refusal({.result = -EBUSY,
                    .object = "change guest memory",
                    .reason = "another transaction is open",
                    .remedy = RemedyCode::end_transaction});
  }
  impl_->begin();
  return Transaction(*impl_);
}

Result<void> GuestMemory::add(Iova first, const Memory& memory, Access access) {
  auto transaction = POSTERN_TRY(begin());
  POSTERN_TRY(transaction.add(first, memory, access));
  return transaction.commit();
}

Result<void> GuestMemory::remove(IovaRange range) {
  auto transaction = POSTERN_TRY(begin());
  POSTERN_TRY(transaction.remove(range));
  return transaction.commit();
}

Result<void> GuestMemory::set_access(IovaRange range, Access access) {
  auto transaction = POSTERN_TRY(begin());
  POSTERN_TRY(transaction.set_access(range, access));
  return transaction.commit();
}

Result<GuestDevice> GuestMemory::attach(const HostDevice& device) { return impl_->attach(device); }
Result<void> GuestMemory::close_unused() { return impl_->close_unused(); }
Result<void> GuestMemory::remap_dma_bufs(IovaRange range) { return impl_->remap_dma_bufs(range); }
const std::vector<std::shared_ptr<Container>>& GuestMemory::containers() const noexcept { return impl_->containers(); }

std::optional<Mapping> GuestMemory::find(Iova iova) const {
  const Mapping* const piece = impl_->layout().find(iova);
  return piece != nullptr ? std::optional(*piece) : std::nullopt;
}

std::optional<Iova> GuestMemory::find(const std::byte* byte) const { return impl_->layout().find(byte); }

void GuestMemory::for_each(const std::function<void(const Mapping&)>& visitor) const {
  for (const auto& [first, piece] : impl_->layout().pieces()) visitor(piece);
}

std::size_t GuestMemory::mapping_count() const noexcept { return impl_->layout().pieces().size(); }
std::uint64_t GuestMemory::total_length() const noexcept { return impl_->layout().total_length(); }

Result<void> GuestMemory::start_tracking() { return impl_->start_tracking(); }
Result<void> GuestMemory::stop_tracking() { return impl_->stop_tracking(); }
Result<DirtyAnswer> GuestMemory::query_dirty(IovaRange range, const DirtyBitmap& bitmap, AfterQuery after) {
  return impl_->query_dirty(range, bitmap, after);
}

GuestMemory::Transaction::Transaction(Transaction&& other) noexcept : memory_(std::exchange(other.memory_, nullptr)) {}
GuestMemory::Transaction::~Transaction() {
  if (memory_ != nullptr) memory_->drop_change();
}

Result<void> GuestMemory::Transaction::add(Iova first, const Memory& memory, Access access) {
  return memory_ != nullptr ? memory_->change()->add(first, memory, access) : ended();
}

Result<void> GuestMemory::Transaction::remove(IovaRange range) {
  return memory_ != nullptr ? memory_->change()->remove(range) : ended();
}

Result<void> GuestMemory::Transaction::set_access(IovaRange range, Access access) {
  return memory_ != nullptr ? memory_->change()->set_access(range, access) : ended();
}

Result<std::uint64_t> GuestMemory::Transaction::add_sparse(Iova first, const Memory& memory, std::uint64_t granule,
                                                           Access access) {
  if (memory_ == nullptr) return ended();
  return memory_->change()->add_sparse(first, memory, granule, access, memory_->most_granules());
}

Result<void> GuestMemory::Transaction::populate(IovaRange range) {
  return memory_ != nullptr ? memory_->change()->populate(range) : ended();
}

Result<void> GuestMemory::Transaction::discard(IovaRange range) {
  return memory_ != nullptr ? memory_->change()->discard(range) : ended();
}

Result<void> GuestMemory::Transaction::commit() {
  if (memory_ == nullptr) return ended();
  POSTERN_TRY(memory_->commit());
  std::exchange(memory_, nullptr)->drop_change();
  return {};
}

}  // namespace postern
