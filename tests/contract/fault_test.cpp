// SPDX-License-Identifier: Apache-2.0
// Runs each scenario once per kernel call and errno that the call can return, and lets that call fail: the error names
// the call, nothing stays open, mapped, pinned, registered or bound, and a second try succeeds.
#include <gmock/gmock.h>

#include "contract/faults/scenario.hpp"
#include "contract/faults/survived.hpp"
#include "support/held.hpp"

namespace postern {
namespace fault_test {

using test::Held;
using test::NamedCall;
using test::Retry;
using test::Scenario;
using test::World;
using ::testing::HasSubstr;

// Two functions of one slot if the scenario wants them and the host has them, else the first and the last disk.
std::pair<PciAddress, PciAddress> choose(test::Devices devices) {
  const std::pair apart(test::first_nvme(), test::last_nvme());
  return devices == test::Devices::twins ? test::twins().value_or(apart) : apart;
}

class Fault : public ::testing::TestWithParam<std::tuple<test::Interface, Scenario>> {
 protected:
  Fault()
      : addresses_(choose(scenario().devices)),
        first_(addresses_.first),
        second_(addresses_.second),
        hosts_{first_.host(), second_.host()},
        before_(kernel_, hosts_[1]) {}
  ~Fault() override { EXPECT_EQ(Held(kernel_, hosts_[1]), before_); }

  static test::Interface interface() { return std::get<0>(GetParam()); }
  static const Scenario& scenario() { return std::get<1>(GetParam()); }

  // The calls that the scenario makes without faults; nothing if it does not apply to this host.
  std::optional<std::vector<NamedCall>> calls();
  void fail(int number, const NamedCall& call, int code);

  std::pair<PciAddress, PciAddress> addresses_;
  test::Bound first_;
  test::Bound second_;
  std::array<HostDevice, 2> hosts_;
  test::WatchedKernel kernel_{test::kernel()};
  Held before_;
};

std::optional<std::vector<NamedCall>> Fault::calls() {
  World world(kernel_, interface(), hosts_[0], hosts_[1]);
  scenario().prepare(world);
  if (!scenario().applies(world)) return std::nullopt;
  kernel_.begin(-1, 0);
  const auto done = scenario().act(world);
  EXPECT_TRUE(done) << done.error().message();
  return kernel_.calls_made();
}

// Expects that every call named by the error was made.
void expect_calls_were_made(const Error& error, const std::vector<NamedCall>& made) {
  const bool was_made = std::any_of(made.begin(), made.end(), [&](const NamedCall& call) {
    return error.operation().compare(0, call.name.size(), call.name) == 0;
  });
  EXPECT_TRUE(error.refused() || was_made) << error.message();
  for (const Error& cause : error.causes()) expect_calls_were_made(cause, made);
}

void Fault::fail(int number, const NamedCall& call, int code) {
  SCOPED_TRACE("call " + std::to_string(number) + ", " + std::string(call.name) + ", fails with " + errno_name(code));
  {
    World world(kernel_, interface(), hosts_[0], hosts_[1]);
    scenario().prepare(world);
    const Held prepared(kernel_, world.other);
    kernel_.begin(number, code);
    const auto done = scenario().act(world);
    ASSERT_TRUE(kernel_.failed()) << "it did not come to this call";
    EXPECT_EQ(kernel_.calls_made()[static_cast<std::size_t>(number)].name, call.name) << "calls come in another order";
    const auto made = kernel_.calls_made();
    kernel_.begin(-1, 0);
    if (!done) expect_calls_were_made(done.error(), made);
    if (done) {
      // The result may still report the failure as the reason why a container was not joined.
      const bool told = std::any_of(world.refusals.begin(), world.refusals.end(), [&](const Error& refusal) {
        return refusal.message().find(call.name) != std::string::npos;
      });
      EXPECT_TRUE(told || test::is_survived(scenario().name, call.name, code)) << "it was survived";
    } else {
      const test::Translation* words = test::find_translation(scenario().name, call.name, code);
      EXPECT_THAT(done.error().message(), HasSubstr(std::string(words != nullptr ? words->words : call.name)));
      EXPECT_THAT(done.error().message(), HasSubstr(words != nullptr ? "" : errno_name(code)));
    }
    if (!done && scenario().retry == Retry::again) {
      EXPECT_EQ(Held(kernel_, world.other), prepared) << done.error().message();
      const auto again = scenario().act(world);
      EXPECT_TRUE(again) << "second try: " << again.error().message();
    }
  }
  ASSERT_EQ(Held(kernel_, hosts_[1]), before_) << "when all was let go";
}

TEST_P(Fault, IsReportedAndLeavesNothingBehind) {
  const auto made = calls();
  if (!made) GTEST_SKIP() << "this host or its device does not have it";
  const std::vector<NamedCall>& all = *made;
  // With few cases, a call fails with its likeliest errno only, and a repeated call only the last time.
  const auto comes_again = [&](std::size_t number) {
    const auto at = all.begin() + static_cast<std::ptrdiff_t>(number);
    return std::any_of(at + 1, all.end(), [&](const NamedCall& call) { return call.name == all[number].name; });
  };
  int faults = 0;
  for (std::size_t number = 0; number < all.size(); ++number) {
    ASSERT_FALSE(all[number].errnos.empty()) << "call " << number << " is not in the table of errnos";
    if (test::few_cases() && comes_again(number)) continue;
    for (const int code : all[number].errnos) {
      fail(static_cast<int>(number), all[number], code);
      if (HasFatalFailure()) return;
      ++faults;
      if (test::few_cases()) break;
    }
  }
  RecordProperty("calls", static_cast<int>(all.size()));
  RecordProperty("faults", faults);
}

std::vector<std::tuple<test::Interface, Scenario>> scenarios() {
  std::vector<std::tuple<test::Interface, Scenario>> all;
  for (const test::Interface& each : test::newest_interfaces()) {
    for (const Scenario& scenario : test::all_scenarios()) {
      if (scenario.suits(each)) all.emplace_back(each, scenario);
    }
  }
  return all;
}
std::string fault_name(const ::testing::TestParamInfo<Fault::ParamType>& test) {
  return test::interface_name({std::get<0>(test.param), test.index}) + "_" + std::string(std::get<1>(test.param).name);
}
INSTANTIATE_TEST_SUITE_P(Backends, Fault, ::testing::ValuesIn(scenarios()), fault_name);

}  // namespace fault_test
}  // namespace postern
