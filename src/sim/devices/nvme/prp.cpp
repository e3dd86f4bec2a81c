// SPDX-License-Identifier: Apache-2.0
// Walks PRPs, and transfers the data by DMA.
#include "sim/devices/nvme/prp.hpp"

#include <algorithm>

namespace postern::sim {
namespace {

using nvm::Status;

constexpr std::size_t entry_size = sizeof(std::uint64_t);

class Walk {
 public:
  Walk(Slot& slot, std::size_t length, std::uint64_t page_size, std::vector<NvmePiece>& pieces)
      : slot_(slot), left_(length), page_size_(page_size), pieces_(pieces) {}

  [[nodiscard]] Status run(std::uint64_t prp1, std::uint64_t prp2) {
    if (prp1 % 4 != 0) return Status::invalid_prp_offset;
    add(prp1, page_size_ - offset(prp1));
    if (left_ == 0) return Status::success;
    return left_ <= page_size_ ? add_page(prp2) : add_list(prp2);
  }

 private:
  [[nodiscard]] std::uint64_t offset(std::uint64_t prp) const { return prp & (page_size_ - 1); }

  void add(std::uint64_t prp, std::uint64_t room) {
    const std::size_t length = std::min<std::uint64_t>(left_, room);
    pieces_.push_back({.iova = {prp}, .length = length});
    left_ -= length;
  }

  // Only the first page may have an offset.
  [[nodiscard]] Status add_page(std::uint64_t prp) {
    if (offset(prp) != 0) return Status::invalid_prp_offset;
    add(prp, page_size_);
    return Status::success;
  }

  // A list may start anywhere in its page. If it continues, the page's last entry names the next page, which is used
  // from its start. So every page but the first names some data, and the walk ends.
  [[nodiscard]] Status add_list(std::uint64_t list) {
    if (list % entry_size != 0) return Status::invalid_prp_offset;
    while (left_ > 0) {
      const std::uint64_t room = (page_size_ - offset(list)) / entry_size;
      const std::uint64_t wanted = (left_ + page_size_ - 1) / page_size_;
      const bool has_next = wanted > room;
      const std::size_t count = std::min(room, wanted);
      std::vector<std::byte> entries(count * entry_size);
      if (!slot_.dma_read({list}, entries)) return Status::data_transfer_error;
      for (std::size_t i = 0; i < count - (has_next ? 1 : 0); ++i) {
        const Status status = add_page(nvm::little_at<std::uint64_t>(entries, i * entry_size));
        if (status != Status::success) return status;
      }
      if (!has_next) return Status::success;
      list = nvm::little_at<std::uint64_t>(entries, (count - 1) * entry_size);
      if (offset(list) != 0) return Status::invalid_prp_offset;
    }
    return Status::success;
  }

  Slot& slot_;
  std::uint64_t left_;
  std::uint64_t page_size_;
  std::vector<NvmePiece>& pieces_;
};

}  // namespace

Status find_pieces(Slot& slot, const nvm::Command& command, std::size_t length, std::uint64_t page_size,
                   std::vector<NvmePiece>& pieces) {
  return Walk(slot, length, page_size, pieces).run(command.prp1, command.prp2);
}

void send(Slot& slot, std::span<const NvmePiece> pieces, std::span<const std::byte> data) {
  for (const NvmePiece& piece : pieces) {
    static_cast<void>(slot.dma_write(piece.iova, data.first(piece.length)));
    data = data.subspan(piece.length);
  }
}

bool fetch(Slot& slot, std::span<const NvmePiece> pieces, std::span<std::byte> data) {
  for (const NvmePiece& piece : pieces) {
    if (!slot.dma_read(piece.iova, data.first(piece.length))) return false;
    data = data.subspan(piece.length);
  }
  return true;
}

}  // namespace postern::sim
