// SPDX-License-Identifier: Apache-2.0
// postern-transcript: a random sequence of VFIO and iommufd calls, valid and not, and what the kernel answered, a line
// each. The same seed asks the same of every kernel, so that two transcripts show where two kernels differ: a real one,
// and the simulated one (--host sim). What is random follows from the seed, and from what was answered.
#include <charconv>
#include <cstdio>
#include <exception>
#include <optional>
#include <postern/sim.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "transcript/operations.hpp"

namespace postern::transcript {
namespace {

constexpr std::uint64_t episode_length = 250;

struct Options {
  Backend backend = Backend::type1;
  std::uint64_t seed = 1;
  std::uint64_t operations = 2000;
  bool simulated = false;
};

bool parse(std::string_view text, std::uint64_t& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

std::optional<Options> parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name(argv[i]);
    const std::string_view value(argv[i + 1]);
    bool known = true;
    if (name == "--backend") {
      known = value == "type1" || value == "type1v1" || value == "iommufd";
      options.backend = value == "type1" ? Backend::type1 : value == "type1v1" ? Backend::type1v1 : Backend::iommufd;
    } else if (name == "--seed") {
      known = parse(value, options.seed);
    } else if (name == "--operations") {
      known = parse(value, options.operations);
    } else {
      known = name == "--host" && value == "sim";
      options.simulated = true;
    }
    if (!known) return std::nullopt;
  }
  return argc % 2 == 1 ? std::optional(options) : std::nullopt;
}

std::vector<Operation> all_operations() {
  std::vector<Operation> all;
  for (const auto some : {node_operations(), type1_operations(), device_operations(), region_operations(),
                          irq_operations(), cdev_operations(), ioas_operations(), hwpt_operations()}) {
    all.insert(all.end(), some.begin(), some.end());
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

void run(const Options& options) {
  SimulatedHost host = simulated_pc();
  host.dirty_bits = false;  // as the guest's emulated IOMMU
  std::optional<SimulatedKernel> simulated;
  Kernel& kernel = options.simulated ? static_cast<Kernel&>(simulated.emplace(host)) : system_kernel();
  World world(kernel, options.backend, options.seed);
  const auto operations = all_operations();
  for (std::uint64_t number = 0; number < options.operations; ++number) {
    if (number % episode_length == 0) (void)std::printf("%s\n", world.begin_episode().c_str());
    world.begin_operation(number);
    const std::string line = choose(world, operations).run(world);
    (void)std::printf("%llu %s\n", static_cast<unsigned long long>(number), line.c_str());
  }
}

}  // namespace
}  // namespace postern::transcript

int main(int argc, char** argv) {
  const auto options = postern::transcript::parse(argc, argv);
  if (!options) {
    (void)std::fprintf(stderr, "Usage: %s [--backend type1|type1v1|iommufd] [--seed N] [--operations N] [--host sim]\n",
                       argv[0]);
    return 2;
  }
  try {
    postern::transcript::run(*options);
  } catch (const std::exception& error) {
    (void)std::fprintf(stderr, "%s: %s\n", argv[0], error.what());
    return 1;
  }
  return 0;
}
