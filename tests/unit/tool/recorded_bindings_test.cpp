// SPDX-License-Identifier: Apache-2.0
// The files that record the previous drivers of devices.
#include "host/recorded_bindings.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "host/chosen_host.hpp"

namespace postern::tool {
namespace recorded_bindings_test {

class RecordedBindingsTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "postern-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  [[nodiscard]] RecordedBindings bindings() const { return RecordedBindings(folder_ + "/run/bind"); }
  void write(const std::string& text) const {
    std::filesystem::create_directories(folder_ + "/run/bind");
    std::ofstream(folder_ + "/run/bind/0000:00:01.0.json") << text;
  }

  static Binding nvme() {
    return {.bus = "pci", .device = "0000:00:01.0", .driver = "nvme", .driver_override = std::nullopt};
  }

  std::string folder_;
};

TEST_F(RecordedBindingsTest, NothingIsRecordedAtFirst) {
  EXPECT_EQ(bindings().find("0000:00:01.0").value().has_value(), false);
}

TEST_F(RecordedBindingsTest, ARecordIsFoundByAnotherObject) {
  ASSERT_TRUE(bindings().record(nvme()).has_value());
  const auto found = bindings().find("0000:00:01.0");
  ASSERT_TRUE(found.has_value() && found->has_value());
  EXPECT_EQ((*found)->bus, "pci");
  EXPECT_EQ((*found)->device, "0000:00:01.0");
  EXPECT_EQ((*found)->driver, "nvme");
  EXPECT_EQ((*found)->driver_override, std::nullopt);
  EXPECT_FALSE(bindings().find("0000:00:02.0").value().has_value());
}

TEST_F(RecordedBindingsTest, ADeviceWithoutADriverIsRecordedAsThat) {
  Binding none = nvme();
  none.driver = std::nullopt;
  none.driver_override = "pci-stub";
  ASSERT_TRUE(bindings().record(none).has_value());
  const auto found = bindings().find("0000:00:01.0");
  ASSERT_TRUE(found.has_value() && found->has_value());
  EXPECT_EQ((*found)->driver, std::nullopt);
  EXPECT_EQ((*found)->driver_override, "pci-stub");
}

TEST_F(RecordedBindingsTest, FolderAndFileAreOpenToTheirOwnerAlone) {
  ASSERT_TRUE(bindings().record(nvme()).has_value());
  struct ::stat folder {};
  struct ::stat file {};
  ASSERT_EQ(::stat((folder_ + "/run/bind").c_str(), &folder), 0);
  ASSERT_EQ(::stat(bindings().path_of("0000:00:01.0").c_str(), &file), 0);
  EXPECT_EQ(folder.st_mode & 0777U, 0700U);
  EXPECT_EQ(file.st_mode & 0777U, 0600U);
}

TEST_F(RecordedBindingsTest, RecordingLeavesNoOtherFileBehind) {
  ASSERT_TRUE(bindings().record(nvme()).has_value());
  ASSERT_TRUE(bindings().record(nvme()).has_value());
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder_ + "/run/bind")) ++count;
  EXPECT_EQ(count, 1U);
}

TEST_F(RecordedBindingsTest, RemovingRemovesAndMayBeDoneTwice) {
  ASSERT_TRUE(bindings().record(nvme()).has_value());
  EXPECT_TRUE(bindings().remove("0000:00:01.0").has_value());
  EXPECT_FALSE(bindings().find("0000:00:01.0").value().has_value());
  EXPECT_TRUE(bindings().remove("0000:00:01.0").has_value());
}

TEST_F(RecordedBindingsTest, AFileThatIsNoBindingOfTheDeviceIsAnErrorAndNotNothing) {
  for (const char* text : {"", "{", "[]", "\"nvme\"", "{\"device\": \"0000:00:01.0\"}",
                           R"({"bus": "pci", "device": "0000:00:02.0", "driver": "nvme", "driver_override": null})"}) {
    write(text);
    const auto found = bindings().find("0000:00:01.0");
    ASSERT_FALSE(found.has_value()) << text;
    EXPECT_EQ(found.error().code(), EINVAL);
    EXPECT_FALSE(found.error().remedy().empty());
  }
}

TEST_F(RecordedBindingsTest, AFileWithValuesOfTheWrongKindIsAnErrorToo) {
  write(R"({"bus": 3, "device": ["0000:00:01.0"], "driver": "nvme", "driver_override": null})");
  EXPECT_EQ(bindings().find("0000:00:01.0").error().code(), EINVAL);
}

TEST(BindingsOfASimulatedHost, AreInNoFile) {
  ChosenHost host;
  ASSERT_EQ(host.choose("sim"), "");
  EXPECT_EQ(host.bindings_folder(), "") << "what is on disk stays there when a signal ends the run";
  const RecordedBindings bindings(host.bindings_folder());
  EXPECT_TRUE(
      bindings.record({.bus = "pci", .device = "0000:00:02.0", .driver = "nvme", .driver_override = {}, .ids = {}}));
  const auto found = bindings.find("0000:00:02.0");
  ASSERT_TRUE(found);
  EXPECT_FALSE(found->has_value());
  EXPECT_TRUE(bindings.remove("0000:00:02.0"));
}

TEST_F(RecordedBindingsTest, ANameThatIsAPathIsNotTakenFromAFile) {
  for (const char* driver : {"../nvme", "/etc", "..", ""}) {
    write(
        fmt::format(R"({{"bus": "pci", "device": "0000:00:01.0", "driver": "{}", "driver_override": null}})", driver));
    ASSERT_FALSE(bindings().find("0000:00:01.0")) << driver;
    EXPECT_EQ(bindings().find("0000:00:01.0").error().code(), EINVAL);
  }
}

TEST_F(RecordedBindingsTest, TheDevicesIdsAreRecorded) {
  Binding binding = nvme();
  binding.ids = "1b36:0010 1af4:1100";
  ASSERT_TRUE(bindings().record(binding));
  EXPECT_EQ(bindings().find("0000:00:01.0").value().value().ids, "1b36:0010 1af4:1100");
  write(R"({"bus": "pci", "device": "0000:00:01.0", "driver": "nvme", "driver_override": null})");
  EXPECT_EQ(bindings().find("0000:00:01.0").value().value().ids, "") << "a file of an older postern has none";
}

TEST_F(RecordedBindingsTest, AreForOneAtATime) {
  const auto lock = bindings().lock("0000:00:01.0");
  ASSERT_TRUE(lock);
  const auto second = bindings().lock("0000:00:01.0");
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), EBUSY);
  EXPECT_TRUE(bindings().lock("0000:00:02.0"));
}

TEST_F(RecordedBindingsTest, AFolderThatCannotBeMadeIsAnError) {
  const auto recorded = RecordedBindings("/proc/postern/bind").record(nvme());
  ASSERT_FALSE(recorded.has_value());
  EXPECT_NE(recorded.error().object().find("/proc/postern/bind/0000:00:01.0.json"), std::string::npos);
}

}  // namespace recorded_bindings_test
}  // namespace postern::tool
