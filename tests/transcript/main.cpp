// SPDX-License-Identifier: Apache-2.0
// postern-transcript: makes a random sequence of valid and invalid VFIO and iommufd calls, and prints a line with each
// call and its result. The calls depend only on the seed and on earlier results, so the transcripts of a real and a
// simulated kernel (--host sim) with the same seed differ where the kernels do.
//
// Each episode is a separate process: it starts with nothing open, mapped or registered, and if the kernel kills it or
// blocks it forever, the others are not affected.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <exception>
#include <optional>
#include <postern-sim/kernel.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "transcript/operations.hpp"

namespace postern::transcript {
namespace {

constexpr std::uint64_t episode_length = 250;
constexpr unsigned episode_seconds = 300;  // far longer than an episode takes on an emulated machine

struct Options {
  Backend backend = Backend::type1;
  std::uint64_t seed = 1;
  std::uint64_t operations = 2000;
  std::optional<sim::Host> simulated;
};

constexpr std::array<std::pair<std::string_view, Backend>, 6> backends{{{"type1", Backend::type1},
                                                                        {"type1v1", Backend::type1v1},
                                                                        {"iommufd", Backend::iommufd},
                                                                        {"migration", Backend::migration},
                                                                        {"spapr", Backend::spapr},
                                                                        {"spaprv1", Backend::spaprv1}}};

bool parse(std::string_view text, std::uint64_t& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

bool parse(std::string_view text, Backend& backend) {
  for (const auto& [name, each] : backends) {
    if (name != text) continue;
    backend = each;
    return true;
  }
  return false;
}

// Disables dirty bits, which a guest's emulated IOMMU does not have either.
std::optional<sim::Host> parse_host(std::string_view text) {
  auto host = sim::find_host(text);
  if (!host) return std::nullopt;
  host->dirty_bits = false;
  return std::move(*host);
}

std::optional<Options> parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name(argv[i]);
    const std::string_view value(argv[i + 1]);
    bool known = false;
    if (name == "--backend") {
      known = parse(value, options.backend);
    } else if (name == "--seed") {
      known = parse(value, options.seed);
    } else if (name == "--operations") {
      known = parse(value, options.operations);
    } else if (name == "--host") {
      options.simulated = parse_host(value);
      known = options.simulated.has_value();
    }
    if (!known) return std::nullopt;
  }
  return argc % 2 == 1 ? std::optional(options) : std::nullopt;
}

std::vector<Operation> all_operations(Backend backend) {
  std::vector<Operation> all;
  const auto add = [&all](std::span<const Operation> some) { all.insert(all.end(), some.begin(), some.end()); };
  if (backend == Backend::migration) {
    add(migration_operations());
    return all;
  }
  add(node_operations());
  if (is_spapr(backend)) {
    add(spapr_operations());
    add(window_operations());
  } else {
    add(type1_operations());
  }
  for (const auto some :
       {device_operations(), region_operations(), bar_operations(), irq_operations(), eventfd_operations(),
        pointer_operations(), cdev_operations(), ioas_operations(), hwpt_operations(), compat_operations()}) {
    add(some);
  }
  return all;
}

const Operation& choose(World& world, const std::vector<Operation>& all) {
  const auto weight = [&](const Operation& operation) {
    const unsigned often = world.backend == Backend::iommufd ? operation.with_iommufd : operation.with_type1;
    return operation.makes_sense(world) ? 20 * often : (often + 3) / 4;
  };
  std::uint64_t sum = 0;
  for (const Operation& operation : all) sum += weight(operation);
  std::uint64_t at = world.random.below(sum);
  for (const Operation& operation : all) {
    if (at < weight(operation)) return operation;
    at -= weight(operation);
  }
  return all.front();
}

// The lines of an episode, in memory shared by its process and the one that waits for it.
class Lines {
 public:
  Lines() : start_(::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) {
    if (start_ == MAP_FAILED) throw std::runtime_error("no memory for the transcript");
  }
  Lines(const Lines&) = delete;
  Lines& operator=(const Lines&) = delete;
  ~Lines() { (void)::munmap(start_, size); }

  void add(const std::string& line) {
    if (length() + line.size() + 1 > room) throw std::runtime_error("an episode has more text than there is room for");
    std::memcpy(text() + length(), (line + '\n').data(), line.size() + 1);
    length() += line.size() + 1;
  }
  void print() {
    (void)std::fwrite(text(), 1, length(), stdout);
    (void)std::fflush(stdout);
    length() = 0;
  }

 private:
  static constexpr std::size_t size = std::size_t{1} << 21;
  static constexpr std::size_t room = size - sizeof(std::size_t);
  [[nodiscard]] std::size_t& length() { return *static_cast<std::size_t*>(start_); }
  [[nodiscard]] char* text() { return static_cast<char*>(start_) + sizeof(std::size_t); }

  void* start_;
};

void run_episode(const Options& options, std::uint64_t episode, Lines& lines) {
  std::optional<sim::Kernel> simulated;
  if (options.simulated) simulated.emplace(*options.simulated);
  World world(simulated ? static_cast<Kernel&>(*simulated) : system_kernel(), options.backend, options.seed);
  const auto operations = all_operations(options.backend);
  lines.add(world.begin_episode(episode));
  const std::uint64_t first = episode * episode_length;
  for (std::uint64_t number = first; number < std::min(first + episode_length, options.operations); ++number) {
    world.begin_operation(number);
    lines.add(std::to_string(number) + ' ' + choose(world, operations).run(world));
  }
}

// Runs an episode in its process, and returns the exit code.
int run_in_process(const Options& options, std::uint64_t episode, Lines& lines) {
  (void)::alarm(episode_seconds);
  try {
    run_episode(options, episode, lines);
  } catch (const std::exception& error) {
    (void)std::fprintf(stderr, "postern-transcript: episode %llu: %s\n", static_cast<unsigned long long>(episode),
                       error.what());
    return 1;
  }
  return 0;
}

// Runs all episodes. Returns whether all of them completed.
bool run(const Options& options) {
  Lines lines;
  bool well = true;
  for (std::uint64_t episode = 0; episode * episode_length < options.operations; ++episode) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(run_in_process(options, episode, lines));
    int status = 0;
    if (child < 0 || ::waitpid(child, &status, 0) != child) return false;
    lines.print();
    if (status == 0) continue;
    well = false;
    (void)std::printf("episode %llu ends in %s %d\n", static_cast<unsigned long long>(episode),
                      WIFSIGNALED(status) ? "signal" : "exit code",
                      WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
  }
  return well;
}

}  // namespace
}  // namespace postern::transcript

int main(int argc, char** argv) {
  const auto options = postern::transcript::parse(argc, argv);
  if (!options) {
    (void)std::fprintf(
        stderr,
        "Usage: %s [--backend type1|type1v1|iommufd|migration|spapr|spaprv1] [--seed N] [--operations N] "
        "[--host sim[:NAME]]\n",
        argv[0]);
    return 2;
  }
  try {
    return postern::transcript::run(*options) ? 0 : 1;
  } catch (const std::exception& error) {
    (void)std::fprintf(stderr, "%s: %s\n", argv[0], error.what());
    return 1;
  }
}
