// SPDX-License-Identifier: Apache-2.0
// Measures what GuestMemory adds to the fewest raw ioctls that map a guest's layout: 1 GiB in 4 pieces, of populated
// 4 KiB pages and of huge pages, by address and, with iommufd, by file. Also what it adds to each piece, which does not
// depend on its size; the cost of huge pages by file; and that of a second page table, which devices behind another
// IOMMU need: of a map into both, and of the device that brings it.
//
// Runs in a guest under -icount, where a nanosecond of the guest's clock is one instruction; the kernel's instructions
// count. Each figure is the least of five runs, since timer interrupts count, too.
#include <sys/mman.h>

#include <algorithm>
#include <limits>
#include <map>
#include <postern/forwarding_kernel.hpp>
#include <postern/guest_memory.hpp>

#include "figure.hpp"
#include "guest/raw_kernel.hpp"

namespace postern::bench {
namespace {

constexpr std::uint64_t mib = std::uint64_t{1} << 20;
constexpr std::uint64_t pieces = 4;
constexpr std::uint64_t piece = 256 * mib;
constexpr std::uint64_t length = pieces * piece;
constexpr double length_in_mib = static_cast<double>(length) / static_cast<double>(mib);
constexpr int runs = 5;

// Where the guest sees a piece. Between pieces are holes, so that no two of them can become one mapping.
constexpr std::uint64_t iova_of(std::uint64_t number) { return 64 * mib + 2 * piece * number; }

// Runs `once`, which returns a number of instructions, several times.
template <typename Once>
double least(Once once) {
  double least = std::numeric_limits<double>::max();
  for (int run = 0; run < runs; ++run) least = std::min(least, once());
  return least;
}

// Calls map(iova, offset) for each piece.
template <typename Map>
double cost_of_pieces(Map map) {
  const double start = instructions();
  for (std::uint64_t number = 0; number < pieces; ++number) map(iova_of(number), number * piece);
  return instructions() - start;
}

// Adds the memory in pieces of this length.
double cost_of_commit(GuestMemory& guest, const Memory& memory, std::uint64_t each = piece) {
  const double start = instructions();
  auto change = guest.begin();
  for (std::uint64_t at = 0; at < length; at += each) {
    if (auto done = change->add({iova_of(at / piece)}, memory.part(at, each)); !done) give_up(done.error().message());
  }
  if (auto done = change->commit(); !done) give_up(done.error().message());
  return instructions() - start;
}

double cost_of_library(const HostDevice& device, std::string_view backend, const Memory& memory,
                       std::uint64_t each = piece) {
  return least([&] {
    GuestMemory guest(system_kernel(), {.backend = backend});
    const auto attached = guest.attach(device);
    if (!attached) give_up(attached.error().message());
    return cost_of_commit(guest, memory, each);
  });
}

void report(const std::string& name, double raw, double library, double limit = 3) {
  print_figure(name + "-raw", raw / length_in_mib, "instructions/MiB");
  print_figure(name + "-library", library / length_in_mib, "instructions/MiB");
  print_figure(name + "-piece", (library - raw) / pieces, "instructions");
  print_figure(name + "-overhead", 100 * (library - raw) / raw, "percent", limit);
}

void measure_address(const HostDevice& device, const std::string& kind, std::byte* memory) {
  const double type1 = least([&] {
    RawContainer side(device, VFIO_TYPE1v2_IOMMU);
    return cost_of_pieces([&](std::uint64_t iova, std::uint64_t at) { side.map(iova, memory + at, piece); });
  });
  report("layout-type1-" + kind, type1, cost_of_library(device, "type1", std::span(memory, length)));
  const double iommufd = least([&] {
    RawIommufd side(device);
    return cost_of_pieces([&](std::uint64_t iova, std::uint64_t at) { side.map(iova, memory + at, piece); });
  });
  report("layout-iommufd-" + kind, iommufd, cost_of_library(device, "iommufd", std::span(memory, length)));
}

void measure_file(const HostDevice& device, const std::string& kind, const std::shared_ptr<const Fd>& file) {
  const double raw = least([&] {
    RawIommufd side(device);
    return cost_of_pieces([&](std::uint64_t iova, std::uint64_t at) { side.map_file(iova, file->get(), at, piece); });
  });
  const Memory memory = Memory::of_file(file, 0, length);
  report("layout-iommufd-" + kind + "-file", raw, cost_of_library(device, "iommufd", memory));
  if (kind == "huge") {
    const double whole = cost_of_library(device, "iommufd", memory, length);  // as one piece
    print_figure("layout-iommufd-huge-file-total", whole / length_in_mib, "instructions/MiB", 600);
  }
}

// A kernel with an IOMMU for each device: the page table of one does not suit another. So the library makes a second
// one, though this guest has one IOMMU.
class IommuForEach final : public ForwardingKernel {
 public:
  using ForwardingKernel::ForwardingKernel;
  int ioctl(int fd, unsigned long request, void* argument) override {
    if (request == VFIO_DEVICE_ATTACH_IOMMUFD_PT) {
      const std::uint32_t table = static_cast<const vfio_device_attach_iommufd_pt*>(argument)->pt_id;
      if (owners_.try_emplace(table, fd).first->second != fd) return -EINVAL;
    }
    return ForwardingKernel::ioctl(fd, request, argument);
  }
  [[nodiscard]] std::size_t tables() const { return owners_.size(); }

 private:
  std::map<std::uint32_t, int> owners_;  // of each page table: the device's fd
};

// When the second device comes: before the layout is mapped, into both tables at once; or after it, and brings a table
// that has to be filled.
enum class Second : std::uint8_t { before, after };

// The instructions of the map, or of attaching the second device.
double cost_of_raw_second(const HostDevice& first, const HostDevice& second, std::byte* memory, Second when) {
  return least([&] {
    RawIommufd side(first);
    if (when == Second::before) side.attach_second(second);
    const double map =
        cost_of_pieces([&](std::uint64_t iova, std::uint64_t at) { side.map(iova, memory + at, piece); });
    if (when == Second::before) return map;
    const double start = instructions();
    side.attach_second(second);
    return instructions() - start;
  });
}

double cost_of_second(const HostDevice& first, const HostDevice& second, std::byte* memory, Second when) {
  return least([&] {
    IommuForEach kernel(system_kernel());
    GuestMemory guest(kernel, {.backend = "iommufd"});
    std::vector<GuestDevice> devices;
    const auto attach = [&](const HostDevice& device) {
      const double start = instructions();
      auto attached = guest.attach(device);
      if (!attached) give_up(attached.error().message());
      devices.push_back(std::move(*attached));
      return instructions() - start;
    };
    attach(first);
    if (when == Second::before) attach(second);
    const double map = cost_of_commit(guest, std::span(memory, length));
    const double attached = when == Second::after ? attach(second) : 0;
    if (kernel.tables() != 2 || guest.containers().size() != 1) give_up("there is no second page table");
    return when == Second::before ? map : attached;
  });
}

void measure_second_table(const HostDevice& first, const HostDevice& second, const std::string& kind,
                          std::byte* memory) {
  const auto measure = [&](const std::string& name, Second when) {
    report(name, cost_of_raw_second(first, second, memory, when), cost_of_second(first, second, memory, when), 5);
  };
  measure("second-page-table-" + kind, Second::before);
  // Of huge pages a table is filled in no time, and what attaching costs otherwise would be all that is measured.
  if (kind == "4KiB") measure("second-page-table-join-" + kind, Second::after);
}

// A memfd whose pages are allocated and written.
std::shared_ptr<const Fd> make_file(unsigned flags) {
  const int fd = checked(::memfd_create("layout-bench", MFD_CLOEXEC | flags), "memfd_create");
  checked(::ftruncate(fd, static_cast<off_t>(length)), "ftruncate");
  return std::make_shared<const Fd>(system_kernel(), fd);
}
std::byte* populate(const Fd& file) {
  void* const memory = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file.get(), 0);
  if (memory == MAP_FAILED) give_up("mmap of 1 GiB: " + errno_name(errno));
  return static_cast<std::byte*>(memory);
}

}  // namespace
}  // namespace postern::bench

int main() {
  using namespace postern::bench;
  const postern::HostDevice device = bind_disks().front();
  const postern::HostDevice second = bind_edu();  // opening it resets nothing, and takes no time
  for (const bool is_huge : {false, true}) {
    const std::string kind = is_huge ? "huge" : "4KiB";
    const auto file = make_file(is_huge ? MFD_HUGETLB : 0);
    std::byte* const memory = populate(*file);
    measure_address(device, kind, memory);
    measure_file(device, kind, file);
    measure_second_table(device, second, kind, memory);
  }
  return all_ok ? 0 : 1;
}
