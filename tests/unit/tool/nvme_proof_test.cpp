// SPDX-License-Identifier: Apache-2.0
// The proof for NVMe controllers, with controllers that lie, fail, or stop midway: its results, and the contents that
// it leaves on the disk.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <postern/dirty_tracker.hpp>
#include <postern/log.hpp>
#include <string>
#include <vector>

#include "kernel/iommufd.hpp"
#include "proofs/nvme_blocks.hpp"
#include "proofs/nvme_dirty.hpp"
#include "proofs/nvme_write.hpp"
#include "proofs/proof.hpp"
#include "support/lying_disk.hpp"

namespace postern::tool {
namespace nvme_proof_test {

using namespace std::chrono_literals;
using Bytes = std::vector<std::byte>;
using test::LyingDisk;
using test::NvmeCommand;
using test::NvmeFate;

constexpr std::uint8_t nvme_write = 1;
constexpr std::uint32_t count = 128;  // blocks of 512 bytes used by the write test

template <typename T>
std::string why(const Result<T>& result) {
  return result ? std::string() : result.error().message();
}

Bytes bytes_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto* first = reinterpret_cast<const std::byte*>(text.data());
  return {first, first + text.size()};
}

// An attached lying disk, and the arguments of a proof.
class ProofRig {
 public:
  explicit ProofRig(const sim::Host& host = sim::pc())
      : disk(host), session_{.kernel = disk.kernel, .bindings_folder = "", .format = Format::json} {
    std::string name = std::filesystem::temp_directory_path() / "postern-proof-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no folder can be made");
    folder = name;
    options.keep_in = folder / "kept";
    options.bytes = std::uint64_t{1} << 20;
  }
  ~ProofRig() { std::filesystem::remove_all(folder); }
  ProofRig(const ProofRig&) = delete;
  ProofRig& operator=(const ProofRig&) = delete;

  void attach() {
    disk.attach();
    ranges_ = disk.container->usable_ranges();
  }
  [[nodiscard]] ProofContext context() {
    return {.session = session_,
            .device = *disk.pci,
            .ranges = ranges_,
            .allocator = *disk.iovas,
            .options = options,
            .steps = steps};
  }
  // Makes the disk accept the pattern, and fail each write after it.
  void fail_restoring() {
    disk.lies.fate = [this, writes = 0](const NvmeCommand& command) mutable {
      const bool is_restoring = is_on && command.opcode == nvme_write && ++writes > 1;
      return is_restoring ? NvmeFate{.is_run = false, .status = 0x280} : NvmeFate{};
    };
  }
  // The timeout of commands; long enough for those that complete, however busy the machine is.
  std::chrono::milliseconds timeout = 60s;
  // Reads the last blocks with an honest controller.
  [[nodiscard]] Bytes last_blocks() {
    const DmaBuffer buffer = disk.buffer(std::uint64_t{count} * 512);
    auto controller = LyingDisk::must(disk.open());
    const nvme::Namespace ns = controller.namespaces().at(0);
    EXPECT_TRUE(controller.read(ns, ns.blocks - count, count, buffer.iova()));
    return {buffer.data(), buffer.data() + buffer.size()};
  }
  [[nodiscard]] Result<std::string> write_and_restore() {
    std::optional<nvme::Controller> controller(LyingDisk::must(disk.open({.timeout = timeout})));
    const nvme::Namespace ns = controller->namespaces().at(0);
    is_on = true;
    auto its_context = context();
    auto done = tool::write_and_restore(its_context, controller, ns);
    is_on = false;
    return done;
  }
  [[nodiscard]] Result<DirtyReport> compare_dirty_pages() {
    auto controller = LyingDisk::must(disk.open());
    const nvme::Namespace ns = controller.namespaces().at(0);
    auto its_context = context();
    return tool::compare_dirty_pages(its_context, *disk.container->get<DirtyTracker>(), controller, ns);
  }
  // The file with kept blocks; empty if there is none.
  [[nodiscard]] std::filesystem::path kept() const {
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator(options.keep_in, none)) return entry.path();
    return {};
  }
  [[nodiscard]] Json step(std::string_view name) const {
    for (const Json& step : steps.json()) {
      if (step["step"] == name) return step;
    }
    return {};
  }

  LyingDisk disk;
  ProofOptions options;
  std::filesystem::path folder;
  std::atomic<bool> is_on = false;  // the write test is running

 private:
  Session session_;
  std::vector<IovaRange> ranges_;

 public:
  Steps steps{session_};
};

TEST(NvmeProof, PassesAnHonestController) {
  ProofRig rig;
  rig.options.write_test = true;
  rig.attach();
  const Bytes old = rig.last_blocks();
  auto context = rig.context();
  nvme_proof.run(context);
  EXPECT_TRUE(rig.steps.failures().empty());
  EXPECT_EQ(rig.step("interrupt")["outcome"], "ok");
  EXPECT_GE(rig.step("interrupt")["interrupts"], 1);
  EXPECT_EQ(rig.step("write")["outcome"], "ok") << rig.step("write");
  EXPECT_TRUE(rig.last_blocks() == old);
  EXPECT_TRUE(rig.kept().empty());
}

TEST(NvmeProof, FailsOneThatNeverInterrupts) {
  ProofRig rig;
  rig.disk.lies.no_interrupts = true;
  rig.attach();
  auto context = rig.context();
  nvme_proof.run(context);
  EXPECT_EQ(rig.steps.failures(), std::vector<std::string>{"interrupt"});
  EXPECT_EQ(rig.step("interrupt")["error"]["errno"], "ENOMSG") << rig.step("interrupt");
}

TEST(NvmeProof, TakesDirtyPagesThatNobodyTracksForNoProof) {
  sim::Host host = sim::pc();
  for (const bool has_dirty_bits : {true, false}) {
    host.dirty_bits = has_dirty_bits;
    ProofRig rig(host);
    rig.attach();
    auto context = rig.context();
    nvme_proof.run(context);
    EXPECT_EQ(rig.step("dirty pages")["outcome"], has_dirty_bits ? "ok" : "skipped") << rig.step("dirty pages");
  }
}

// The hidden page is one that the proof has read into.
TEST(DirtyPages, FailWhereAWrittenOneIsNotTold) {
  constexpr std::uint64_t page = std::uint64_t{1} << 63;
  ProofRig rig;
  rig.attach();
  rig.disk.kernel.answer = [](unsigned long request, void* argument, int result) {
    if (request != IOMMU_HWPT_GET_DIRTY_BITMAP) return result;
    const auto& get = *static_cast<iommu_hwpt_get_dirty_bitmap*>(argument);
    *reinterpret_cast<std::uint64_t*>(get.data) &= ~page;
    return result;
  };
  const auto report = rig.compare_dirty_pages();
  ASSERT_FALSE(report);
  EXPECT_NE(report.error().reason().find("no query reported it"), std::string::npos) << why(report);
}

TEST(DirtyPages, FailWhereOthersAreWrittenThanWereAskedFor) {
  for (const bool strays : {true, false}) {
    ProofRig rig;
    rig.disk.lies.fate = [strays](const NvmeCommand&) { return NvmeFate{.arrives = strays, .strays = strays}; };
    rig.attach();
    const auto report = rig.compare_dirty_pages();
    ASSERT_FALSE(report);
    const std::string_view reason = strays ? "without a command" : "no data arrived";
    EXPECT_NE(report.error().reason().find(reason), std::string::npos) << why(report);
  }
}

TEST(NvmeProof, ReportsADeviceThatIgnoresDisableAsARemarkNotAFailure) {
  show_logged_errors();
  const std::size_t before = logged_errors();
  ProofRig rig;
  rig.attach();
  rig.disk.lies.ignores_disable = true;
  auto context = rig.context();
  nvme_proof.run(context);
  set_log_handler(nullptr);
  EXPECT_TRUE(rig.steps.failures().empty());
  const Json step = rig.step("interrupt");  // it reset the device, which could not be disabled
  ASSERT_TRUE(step.contains("remarks")) << step;
  EXPECT_EQ(step["remarks"][0]["kind"], "device");
  EXPECT_EQ(step["remarks"][0]["error"]["errno"], "ETIMEDOUT");
  EXPECT_EQ(logged_errors(), before);
}

TEST(NvmeProof, MovesBlocksLongerThanItWants) {
  EXPECT_EQ(blocks_at_a_time(512, 1 << 20, 64 << 10), 128U);
  EXPECT_EQ(blocks_at_a_time(512, 4096, 64 << 10), 8U);
  EXPECT_EQ(blocks_at_a_time(128 << 10, 1 << 20, 64 << 10), 1U);   // one block, longer than requested
  EXPECT_EQ(blocks_at_a_time(128 << 10, 64 << 10, 64 << 10), 0U);  // the controller cannot move a block
}

// The timeout in tests with commands that never complete; all others must complete within it.
#if !defined(__OPTIMIZE__)  // as with the sanitizers
constexpr auto short_timeout = 3s;
#else
constexpr auto short_timeout = 500ms;
#endif

// How a command goes wrong.
struct Mishap {
  std::string_view name;
  NvmeFate fate;
};
constexpr std::array mishaps = {
    Mishap{"is refused", {.is_run = false, .status = 0x006}},
    Mishap{"is said to have failed, but was done", {.status = 0x280}},
    Mishap{"is not answered", {.is_run = false, .is_answered = false}},
    Mishap{"is done, but not answered", {.is_answered = false}},
};

// At any moment the disk or the file has the old content, so killing the process loses nothing.
TEST(WriteTest, LosesNothingWhicheverCommandGoesWrong) {
  for (const Mishap& mishap : mishaps) {
    bool has_gone_wrong = true;
    for (int which = 1; has_gone_wrong; ++which) {
      SCOPED_TRACE("command " + std::to_string(which) + " " + std::string(mishap.name));
      ProofRig rig;
      if (!mishap.fate.is_answered) rig.timeout = short_timeout;
      Bytes old;
      int commands = 0;
      int writes = 0;
      int moments = 0;
      int lost = 0;
      has_gone_wrong = false;
      const auto look = [&] {
        if (!rig.is_on || writes % 2 == 0) return;  // odd: the pattern was written, the old content not yet
        ++moments;
        const auto kept = rig.kept();
        if (kept.empty() || bytes_of(kept) != old) ++lost;
      };
      rig.disk.lies.fate = [&](const NvmeCommand& command) {
        look();
        if (!rig.is_on) return NvmeFate{};
        const bool is_this_one = ++commands == which;
        has_gone_wrong = has_gone_wrong || is_this_one;
        const NvmeFate fate = is_this_one ? mishap.fate : NvmeFate{};
        if (command.opcode == nvme_write && fate.is_run) ++writes;
        look();
        return fate;
      };
      rig.disk.lies.after = [&](const NvmeCommand&, const NvmeFate&) { look(); };
      rig.attach();
      old = rig.last_blocks();
      const auto done = rig.write_and_restore();
      EXPECT_EQ(lost, 0) << "of " << moments;
      EXPECT_TRUE(rig.kept().empty()) << why(done);
      EXPECT_TRUE(rig.last_blocks() == old) << why(done);
      // A failure while restoring was recovered from; an earlier one is reported.
      EXPECT_EQ(done.has_value(), !has_gone_wrong || which > 4) << why(done);
      EXPECT_TRUE(moments > 0 || writes == 0);
    }
  }
}

TEST(WriteTest, SaysWhereTheOldContentIsWhenItCannotBeRestored) {
  ProofRig rig;
  rig.fail_restoring();
  rig.attach();
  const Bytes old = rig.last_blocks();
  const auto done = rig.write_and_restore();
  ASSERT_FALSE(done);
  const auto kept = rig.kept();
  ASSERT_FALSE(kept.empty());
  EXPECT_TRUE(bytes_of(kept) == old);
  EXPECT_NE(done.error().reason().find(kept.string()), std::string::npos) << why(done);
  EXPECT_FALSE(rig.last_blocks() == old);

  // The next test must not take the current content for the old one.
  const auto next = rig.write_and_restore();
  ASSERT_FALSE(next);
  EXPECT_EQ(next.error().code(), EEXIST) << why(next);
  EXPECT_NE(next.error().remedy().find(kept.string()), std::string::npos) << why(next);
  EXPECT_TRUE(bytes_of(kept) == old);
}

TEST(WriteTest, FailsADiskThatLosesAWrite) {
  ProofRig rig;
  int writes = 0;
  rig.disk.lies.fate = [&](const NvmeCommand& command) {
    const bool is_pattern = rig.is_on && command.opcode == nvme_write && ++writes == 1;
    return NvmeFate{.is_lost = is_pattern};
  };
  rig.attach();
  const Bytes old = rig.last_blocks();
  const auto done = rig.write_and_restore();
  ASSERT_FALSE(done);
  EXPECT_NE(done.error().reason().find("the bytes read back differ"), std::string::npos) << why(done);
  EXPECT_TRUE(rig.last_blocks() == old);
}

// Otherwise a disk that loses a write but has the pattern of an earlier run would pass.
TEST(WriteTest, WritesAnotherPatternInEachRun) {
  std::vector<Bytes> left;
  for (int run = 0; run < 2; ++run) {
    ProofRig rig;
    rig.fail_restoring();
    rig.attach();
    const Bytes old = rig.last_blocks();
    ASSERT_FALSE(rig.write_and_restore());
    left.push_back(rig.last_blocks());
    EXPECT_FALSE(left.back() == old);
  }
  EXPECT_FALSE(left[0] == left[1]);
}

TEST(WriteTest, TakesAWriteProtectedNamespaceForWhatItIs) {
  ProofRig rig;
  rig.options.write_test = true;
  rig.disk.lies.fate = [](const NvmeCommand& command) {
    return command.opcode == nvme_write ? NvmeFate{.is_run = false, .status = 0x020} : NvmeFate{};
  };
  rig.attach();
  auto context = rig.context();
  nvme_proof.run(context);
  EXPECT_TRUE(rig.steps.failures().empty());
  EXPECT_EQ(rig.step("write")["outcome"], "skipped") << rig.step("write");
  EXPECT_TRUE(rig.kept().empty());
}

TEST(WriteTest, WritesNothingWhereTheOldContentCannotBeKept) {
  ProofRig rig;
  std::ofstream(rig.folder / "file") << "no folder";
  rig.options.keep_in = rig.folder / "file";
  int writes = 0;
  rig.disk.lies.fate = [&writes](const NvmeCommand& command) {
    if (command.opcode == nvme_write) ++writes;
    return NvmeFate{};
  };
  rig.attach();
  const auto done = rig.write_and_restore();
  ASSERT_FALSE(done);
  EXPECT_NE(done.error().remedy().find("--keep-in"), std::string::npos) << why(done);
  EXPECT_EQ(writes, 0);
}

constexpr std::array deadly = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGALRM, SIGUSR1, SIGUSR2, SIGXFSZ};
std::array<std::atomic<int>, NSIG> signals_seen;
void see_signal(int signal) { ++signals_seen[static_cast<std::size_t>(signal)]; }

TEST(WriteTest, PutsSignalsOffWhicheverThreadTheyComeTo) {
  std::vector<std::pair<int, struct sigaction>> before;
  for (const int signal : deadly) {
    struct sigaction see {};
    struct sigaction was {};
    see.sa_handler = see_signal;
    ASSERT_EQ(::sigaction(signal, &see, &was), 0);
    before.emplace_back(signal, was);
    signals_seen[static_cast<std::size_t>(signal)] = 0;
  }
  const auto seen = [] {
    int all = 0;
    for (const int signal : deadly) all += signals_seen[static_cast<std::size_t>(signal)];
    return all;
  };
  ProofRig rig;
  int seen_meanwhile = 0;
  int sent = 0;
  rig.disk.lies.fate = [&](const NvmeCommand& command) {
    if (!rig.is_on || command.opcode == 2) return NvmeFate{};
    for (const int signal : deadly) {
      (void)::kill(::getpid(), signal);  // to any thread
      (void)::raise(signal);             // to the simulated machine's thread
      ++sent;
    }
    seen_meanwhile = std::max(seen_meanwhile, seen());
    return NvmeFate{};
  };
  rig.attach();
  const Bytes old = rig.last_blocks();
  const auto done = rig.write_and_restore();
  EXPECT_TRUE(done) << why(done);
  EXPECT_GE(sent, 4 * static_cast<int>(deadly.size()));  // two writes, two flushes
  EXPECT_EQ(seen_meanwhile, 0);
  EXPECT_EQ(seen(), static_cast<int>(deadly.size()));  // each is delivered once, at the end
  EXPECT_TRUE(rig.last_blocks() == old);
  for (const auto& [signal, was] : before) (void)::sigaction(signal, &was, nullptr);
}

}  // namespace nvme_proof_test
}  // namespace postern::tool
