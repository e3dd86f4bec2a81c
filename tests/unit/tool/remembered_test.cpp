// SPDX-License-Identifier: Apache-2.0
// What devices were bound to before, in files.
#include "host/remembered.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "host/chosen_host.hpp"

namespace postern::tool {
namespace remembered_test {

class RememberedBindingsTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "postern-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  [[nodiscard]] RememberedBindings bindings() const { return RememberedBindings(folder_ + "/run/bind"); }
  void write(const std::string& text) const {
    std::filesystem::create_directories(folder_ + "/run/bind");
    std::ofstream(folder_ + "/run/bind/0000:00:01.0.json") << text;
  }

  static Binding nvme() {
    return {.bus = "pci", .device = "0000:00:01.0", .driver = "nvme", .driver_override = std::nullopt};
  }

  std::string folder_;
};

TEST_F(RememberedBindingsTest, NothingIsRememberedAtFirst) {
  EXPECT_EQ(bindings().recall("0000:00:01.0").value().has_value(), false);
}

TEST_F(RememberedBindingsTest, WhatIsRememberedIsRecalledByAnother) {
  ASSERT_TRUE(bindings().remember(nvme()).has_value());
  const auto recalled = bindings().recall("0000:00:01.0");
  ASSERT_TRUE(recalled.has_value() && recalled->has_value());
  EXPECT_EQ((*recalled)->bus, "pci");
  EXPECT_EQ((*recalled)->device, "0000:00:01.0");
  EXPECT_EQ((*recalled)->driver, "nvme");
  EXPECT_EQ((*recalled)->driver_override, std::nullopt);
  EXPECT_FALSE(bindings().recall("0000:00:02.0").value().has_value());
}

TEST_F(RememberedBindingsTest, ADeviceWithoutADriverIsRememberedAsThat) {
  Binding none = nvme();
  none.driver = std::nullopt;
  none.driver_override = "pci-stub";
  ASSERT_TRUE(bindings().remember(none).has_value());
  const auto recalled = bindings().recall("0000:00:01.0");
  ASSERT_TRUE(recalled.has_value() && recalled->has_value());
  EXPECT_EQ((*recalled)->driver, std::nullopt);
  EXPECT_EQ((*recalled)->driver_override, "pci-stub");
}

TEST_F(RememberedBindingsTest, FolderAndFileAreOpenToTheirOwnerAlone) {
  ASSERT_TRUE(bindings().remember(nvme()).has_value());
  struct ::stat folder {};
  struct ::stat file {};
  ASSERT_EQ(::stat((folder_ + "/run/bind").c_str(), &folder), 0);
  ASSERT_EQ(::stat(bindings().path_of("0000:00:01.0").c_str(), &file), 0);
  EXPECT_EQ(folder.st_mode & 0777U, 0700U);
  EXPECT_EQ(file.st_mode & 0777U, 0600U);
}

TEST_F(RememberedBindingsTest, RememberingLeavesNoOtherFileBehind) {
  ASSERT_TRUE(bindings().remember(nvme()).has_value());
  ASSERT_TRUE(bindings().remember(nvme()).has_value());
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder_ + "/run/bind")) ++count;
  EXPECT_EQ(count, 1U);
}

TEST_F(RememberedBindingsTest, ForgettingForgetsAndMayBeDoneTwice) {
  ASSERT_TRUE(bindings().remember(nvme()).has_value());
  EXPECT_TRUE(bindings().forget("0000:00:01.0").has_value());
  EXPECT_FALSE(bindings().recall("0000:00:01.0").value().has_value());
  EXPECT_TRUE(bindings().forget("0000:00:01.0").has_value());
}

TEST_F(RememberedBindingsTest, AFileThatIsNoBindingOfTheDeviceIsAnErrorAndNotNothing) {
  for (const char* text : {"", "{", "[]", "\"nvme\"", "{\"device\": \"0000:00:01.0\"}",
                           R"({"bus": "pci", "device": "0000:00:02.0", "driver": "nvme", "driver_override": null})"}) {
    write(text);
    const auto recalled = bindings().recall("0000:00:01.0");
    ASSERT_FALSE(recalled.has_value()) << text;
    EXPECT_EQ(recalled.error().code(), EINVAL);
    EXPECT_FALSE(recalled.error().remedy().empty());
  }
}

TEST_F(RememberedBindingsTest, AFileWithValuesOfTheWrongKindIsAnErrorToo) {
  write(R"({"bus": 3, "device": ["0000:00:01.0"], "driver": "nvme", "driver_override": null})");
  EXPECT_EQ(bindings().recall("0000:00:01.0").error().code(), EINVAL);
}

TEST(BindingsOfASimulatedHost, AreInNoFile) {
  ChosenHost host;
  ASSERT_EQ(host.choose("sim"), "");
  EXPECT_EQ(host.bindings_folder(), "") << "what is on disk stays there when a signal ends the run";
  const RememberedBindings bindings(host.bindings_folder());
  EXPECT_TRUE(
      bindings.remember({.bus = "pci", .device = "0000:00:02.0", .driver = "nvme", .driver_override = {}, .ids = {}}));
  const auto recalled = bindings.recall("0000:00:02.0");
  ASSERT_TRUE(recalled);
  EXPECT_FALSE(recalled->has_value());
  EXPECT_TRUE(bindings.forget("0000:00:02.0"));
}

TEST_F(RememberedBindingsTest, ANameThatIsAPathIsNotTakenFromAFile) {
  for (const char* driver : {"../nvme", "/etc", "..", ""}) {
    write(
        fmt::format(R"({{"bus": "pci", "device": "0000:00:01.0", "driver": "{}", "driver_override": null}})", driver));
    ASSERT_FALSE(bindings().recall("0000:00:01.0")) << driver;
    EXPECT_EQ(bindings().recall("0000:00:01.0").error().code(), EINVAL);
  }
}

TEST_F(RememberedBindingsTest, TheDevicesIdsAreRemembered) {
  Binding binding = nvme();
  binding.ids = "1b36:0010 1af4:1100";
  ASSERT_TRUE(bindings().remember(binding));
  EXPECT_EQ(bindings().recall("0000:00:01.0").value().value().ids, "1b36:0010 1af4:1100");
  write(R"({"bus": "pci", "device": "0000:00:01.0", "driver": "nvme", "driver_override": null})");
  EXPECT_EQ(bindings().recall("0000:00:01.0").value().value().ids, "") << "a file of an older postern has none";
}

TEST_F(RememberedBindingsTest, AreForOneAtATime) {
  const auto lock = bindings().lock("0000:00:01.0");
  ASSERT_TRUE(lock);
  const auto second = bindings().lock("0000:00:01.0");
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), EBUSY);
  EXPECT_TRUE(bindings().lock("0000:00:02.0"));
}

TEST_F(RememberedBindingsTest, AFolderThatCannotBeMadeIsAnError) {
  const auto remembered = RememberedBindings("/proc/postern/bind").remember(nvme());
  ASSERT_FALSE(remembered.has_value());
  EXPECT_NE(remembered.error().object().find("/proc/postern/bind/0000:00:01.0.json"), std::string::npos);
}

}  // namespace remembered_test
}  // namespace postern::tool
