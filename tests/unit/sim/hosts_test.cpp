// SPDX-License-Identifier: Apache-2.0
// Simulated hosts by name and by description: valid ones, and the errors for others.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <postern-sim/kernel.hpp>
#include <postern/log.hpp>

namespace postern {
namespace hosts_test {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr std::string_view one_disk = R"({"address": "00:01.0", "model": "nvme", "iommu_group": 1})";

Result<sim::Host> parse(const std::string& json) { return sim::parse_host(json, "host.json"); }
std::string with_functions(const std::string& functions, const std::string& platform = "pc") {
  return R"({"platform": ")" + platform + R"(", "functions": [)" + functions + "]}";
}
// The position and the text of an error.
std::string refusal(const std::string& json) {
  const auto host = parse(json);
  if (host) return "not refused";
  EXPECT_EQ(host.error().code(), EINVAL);
  return host.error().object() + ": " + host.error().reason() + "; " + host.error().remedy();
}

TEST(DescribedHost, HasAllThatItsDescriptionSays) {
  const auto host = parse(R"({
    "platform": "arm", "locked_memory": 8388608, "address_bits": 40, "mapping_limit": 9, "dirty_bits": true,
    "dynamic_msix": false,
    "functions": [
      {"address": "0001:02:03.0", "model": "nvme", "iommu_group": 4, "driver": "vfio-pci", "serial": "S", "bytes": 512},
      {"address": "04:00.0", "model": "bridge", "iommu_group": null}
    ]})");
  ASSERT_TRUE(host) << host.error().message();
  EXPECT_EQ(host->platform, sim::Platform::arm);
  EXPECT_EQ(host->locked_memory, 8388608U);
  EXPECT_EQ(host->address_bits, 40U);
  EXPECT_EQ(host->mapping_limit, 9U);
  EXPECT_TRUE(host->dirty_bits);
  EXPECT_FALSE(host->dynamic_msix);
  ASSERT_EQ(host->functions.size(), 2U);
  const sim::HostFunction& disk = host->functions[0];
  EXPECT_EQ(disk.address, (PciAddress{.domain = 1, .bus = 2, .device = 3}));
  EXPECT_EQ(disk.model, sim::HostFunction::Model::nvme);
  EXPECT_EQ(disk.iommu_group, 4);
  EXPECT_EQ(disk.driver, "vfio-pci");
  EXPECT_EQ(disk.serial, "S");
  EXPECT_EQ(disk.bytes, 512U);
  EXPECT_EQ(host->functions[1].model, sim::HostFunction::Model::bridge);
  EXPECT_LT(host->functions[1].iommu_group, 0);
}

TEST(DescribedHost, IsAsTheStructIsWhereNothingIsSaid) {
  const auto host = parse(with_functions(std::string(one_disk)));
  ASSERT_TRUE(host) << host.error().message();
  const sim::Host plain;
  EXPECT_EQ(host->locked_memory, std::nullopt);
  EXPECT_EQ(host->address_bits, plain.address_bits);
  EXPECT_EQ(host->mapping_limit, plain.mapping_limit);
  EXPECT_FALSE(host->dirty_bits);
  EXPECT_TRUE(host->dynamic_msix);
  EXPECT_EQ(host->functions.at(0).bytes, sim::HostFunction().bytes);
  EXPECT_EQ(parse(with_functions("", "arm")).value().address_bits, 48U) << "as its IOMMU has them";
}

TEST(DescribedHost, SaysWhereItIsNoJson) {
  EXPECT_THAT(refusal("{\"platform\": \"pc\",\n}"), AllOf(HasSubstr("host.json: "), HasSubstr("line 2, column 1")));
  EXPECT_THAT(refusal(""), HasSubstr("line 1, column 1"));
  EXPECT_THAT(refusal("{\"platform\": \"\xff\"}"), HasSubstr("UTF-8"));
}

TEST(DescribedHost, SaysWhichNumberIsOutOfRange) {
  EXPECT_THAT(refusal("{\"platform\": \"pc\",\n \"address_bits\": 1e999, \"functions\": []}"),
              HasSubstr("host.json: address_bits: the number 1e999 is out of range (line 2, column 18)"));
  EXPECT_THAT(refusal(with_functions(std::string(one_disk) + R"(, {"address": "00:02.0", "bytes": -1e400})")),
              HasSubstr("host.json: functions[1].bytes: the number -1e400"));
  EXPECT_THAT(refusal("[0, [1, 2e999]]"), HasSubstr("host.json: [1][1]: the number 2e999"));
  EXPECT_THAT(refusal("1e999"), HasSubstr("line 1, column 1"));
  // Must not be parsed as a double, nor as another integer.
  EXPECT_THAT(refusal(R"({"platform": "pc", "locked_memory": 18446744073709551616, "functions": []})"),
              AllOf(HasSubstr("host.json: locked_memory"), HasSubstr("from 0 to 18446744073709551615")));
}

TEST(DescribedHost, SaysWhatIsNestedTooDeep) {
  for (const std::size_t depth : {9U, 200'000U}) {
    EXPECT_THAT(
        refusal(R"({"platform": "pc", "functions": )" + std::string(depth, '[') + std::string(depth, ']') + "}"),
        AllOf(HasSubstr("host.json: functions[0]"), HasSubstr("nested more than")));
    EXPECT_THAT(refusal(std::string(depth, '[')), HasSubstr("nested more than")) << "not closed";
  }
  std::string objects;
  for (int i = 0; i < 200'000; ++i) objects += "{\"a\":";
  EXPECT_THAT(refusal(objects), AllOf(HasSubstr("host.json: a.a"), HasSubstr("nested more than")));
}

TEST(DescribedHost, NamesTheKeysThatThereAre) {
  EXPECT_THAT(refusal("[]"), HasSubstr("write an object"));
  EXPECT_THAT(refusal(R"({"platform": "pc"})"), HasSubstr("the key \"functions\" is missing"));
  EXPECT_THAT(refusal(R"({"platform": "pc", "functions": [], "memory": 1})"),
              AllOf(HasSubstr("host.json: memory: unknown key"), HasSubstr("locked_memory, address_bits")));
  EXPECT_THAT(refusal(with_functions(R"({"address": "00:01.0", "model": "nvme", "group": 1})")),
              AllOf(HasSubstr("functions[0].group: unknown key"), HasSubstr("iommu_group")));
  EXPECT_THAT(refusal(R"({"platform": "pc", "platform": "arm", "functions": []})"),
              HasSubstr("host.json: platform: the key appears twice"));
  EXPECT_THAT(refusal(with_functions(R"({"address": "00:01.0", "address": "00:01.0"})")),
              HasSubstr("functions[0].address: the key appears twice"));
}

TEST(DescribedHost, NamesTheValuesThatAreAllowed) {
  EXPECT_THAT(refusal(with_functions("", "sparc")),
              HasSubstr(R"(platform: "sparc" is not allowed here; write one of: "pc")"));
  EXPECT_THAT(refusal(with_functions(R"({"address": "1.0", "model": "nvme", "iommu_group": 1})")),
              AllOf(HasSubstr("functions[0].address: \"1.0\""), HasSubstr("0000:00:01.0")));
  EXPECT_THAT(refusal(with_functions(R"({"address": "00:01.0", "model": "nvm", "iommu_group": 1})")),
              HasSubstr(R"("nvme", "bridge")"));
  for (const char* const group : {"-1", "1.5", "\"1\"", "2147483648", "[]"}) {
    EXPECT_THAT(refusal(with_functions(R"({"address": "00:01.0", "model": "nvme", "iommu_group": )" +
                                       std::string(group) + "}")),
                HasSubstr("from 0 to 2147483647"));
  }
  EXPECT_THAT(refusal(R"({"platform": "pc", "functions": [], "dirty_bits": 1})"), HasSubstr("true or false"));
  EXPECT_THAT(refusal(R"({"platform": "pc", "functions": {}})"), HasSubstr("write a list"));
}

TEST(DescribedHost, MustBePossible) {
  const std::string disk(one_disk);
  EXPECT_THAT(refusal(with_functions(disk + "," + disk)),
              HasSubstr("functions[1].address: functions[0] also has the address 0000:00:01.0"));
  EXPECT_THAT(refusal(with_functions(disk + R"(,{"address": "1:00:01.0", "model": "nvme", "iommu_group": 1})")),
              HasSubstr("functions[1].iommu_group: functions[0] of group 1 is in the PCI domain 0000"));
  EXPECT_THAT(refusal(with_functions(R"({"address": "00:01.1", "model": "nvme", "iommu_group": 1})")),
              HasSubstr("there is no 0000:00:01.0"));
  // It cannot be a virtual function of these: a bridge, a function of another domain, and one after it.
  for (const char* const before : {R"({"address": "0:0.0", "model": "bridge", "iommu_group": 2})",
                                   R"({"address": "ffff:00:00.0", "model": "nvme", "iommu_group": 2})",
                                   R"({"address": "00:03.0", "model": "nvme", "iommu_group": 2})"}) {
    EXPECT_THAT(
        refusal(with_functions(R"({"address": "00:02.1", "model": "nvme", "iommu_group": 1},)" + std::string(before))),
        HasSubstr("there is no 0000:00:02.0"));
  }
  const auto with = [](const std::string& more) {
    return with_functions(R"({"address": "00:01.0", "model": "nvme", "iommu_group": 1, )" + more + "}");
  };
  EXPECT_THAT(refusal(with(R"("driver": "e1000")")), HasSubstr("write nvme, vfio-pci or pci-stub"));
  EXPECT_THAT(refusal(with(R"("serial": "123456789012345678901")")), HasSubstr("at most 20"));
  EXPECT_THAT(refusal(with(R"("bytes": 100)")), HasSubstr("a multiple of 512"));
  EXPECT_THAT(refusal(with(R"("bytes": 0)")), HasSubstr("a multiple of 512"));
  EXPECT_THAT(refusal(with_functions(R"({"address": "00:01.0", "model": "bridge", "iommu_group": 1, "serial": "x"})")),
              HasSubstr("has no disk"));
  EXPECT_THAT(
      refusal(with_functions(R"({"address": "0:1.0", "model": "bridge", "iommu_group": 1, "driver": "vfio-pci"})")),
      HasSubstr("does not support bridges"));
  EXPECT_THAT(refusal(R"({"platform": "arm", "functions": [], "address_bits": 57})"), HasSubstr("from 32 to 48"));
  EXPECT_THAT(refusal(R"({"platform": "pseries", "functions": [], "address_bits": 48})"),
              HasSubstr("POWER hosts do not support"));
  EXPECT_THAT(refusal(with_functions(disk, "powernv")), HasSubstr("root port"));
}

// Impossible hosts that a program creates.
struct ImpossibleHost {
  sim::Host host;
  const char* place;
  const char* words;
};
std::vector<ImpossibleHost> impossible_hosts() {
  const sim::HostFunction disk{.address = {.device = 1}};
  sim::HostFunction odd = disk;
  odd.bytes = 1000;
  return {
      {{.functions = {{.address = {.device = 99}}}, .locked_memory = {}}, "functions[0].address", "PCI has no"},
      {{.functions = {disk, {.address = {.device = 2, .function = 8}}}, .locked_memory = {}},
       "functions[1].address",
       "a function from 0 to 7"},
      {{.functions = {disk, disk}, .locked_memory = {}}, "functions[1].address", "functions[0] also has the address"},
      {{.functions = {disk}, .locked_memory = {}, .address_bits = 5}, "address_bits", "from 32 to 57"},
      {{.functions = {odd}, .locked_memory = {}}, "functions[0].bytes", "a multiple of 512"}};
}

TEST(Host, IsCheckedAsADescriptionIs) {
  EXPECT_TRUE(sim::check_host({}));
  for (const sim::Host& host : {sim::pc(), sim::arm(), sim::pseries(), sim::powernv()}) {
    const auto checked = sim::check_host(host);
    EXPECT_TRUE(checked) << checked.error().message();
  }
  for (const auto& [host, place, words] : impossible_hosts()) {
    const auto checked = sim::check_host(host);
    ASSERT_FALSE(checked) << place;
    EXPECT_EQ(checked.error().code(), EINVAL);
    EXPECT_EQ(checked.error().object(), place);
    EXPECT_THAT(checked.error().message(), HasSubstr(words));
  }
}

TEST(Host, ThatCannotBeIsNotBootedAndTheReasonIsLogged) {
  static std::vector<std::string> logged;
  for (const auto& [host, place, words] : impossible_hosts()) {
    logged.clear();
    set_log_handler([](LogKind, const Error& error) noexcept { logged.push_back(error.message()); });
    sim::Kernel kernel(host);
    set_log_handler(nullptr);
    ASSERT_EQ(logged.size(), 1U) << place;
    EXPECT_THAT(logged[0], AllOf(HasSubstr(place), HasSubstr(words)));
    std::vector<std::string> names;
    EXPECT_EQ(kernel.list_directory("/sys/bus/pci/devices", names), -EINVAL);
    EXPECT_EQ(kernel.open("/dev/vfio/vfio", 0), -EINVAL);
  }
}

TEST(DescribedHost, MayHaveVirtualFunctionsInSlotsWithoutAFirst) {
  const auto host = parse(R"({"platform": "pc", "address_bits": 48, "functions": [
    {"address": "0000:02:00.0", "model": "nvme", "iommu_group": 20},
    {"address": "0000:02:10.1", "model": "nvme", "iommu_group": 30, "driver": "vfio-pci", "serial": "vf0"}]})");
  ASSERT_TRUE(host) << host.error().message();
  EXPECT_EQ(host->functions.size(), 2U);
}

TEST(NamedHost, IsOneOfThoseThatTheRefusalLists) {
  const auto none = sim::find_host("sim:vax");
  ASSERT_FALSE(none);
  for (const char* const name : {"sim", "sim:pc", "sim:arm", "sim:pseries", "sim:powernv"}) {
    EXPECT_TRUE(sim::find_host(name)) << name;
    EXPECT_THAT(none.error().remedy(), HasSubstr(name));
  }
  EXPECT_FALSE(sim::find_host(""));
  EXPECT_FALSE(sim::find_host("pc"));
  EXPECT_EQ(sim::find_host("sim:/nowhere/host.json").error().code(), ENOENT);
}

class HostFile : public testing::Test {
 protected:
  HostFile() { EXPECT_NE(::mkdtemp(folder_.data()), nullptr); }
  ~HostFile() override { std::filesystem::remove_all(folder_); }
  [[nodiscard]] std::string path(const std::string& name) const { return folder_ + "/" + name; }
  // The error for a file. Would block forever if it read a FIFO or an endless file.
  static Error refused(const std::string& path) {
    const auto host = sim::find_host("sim:" + path);
    EXPECT_FALSE(host) << path;
    return host ? Error({}) : host.error();
  }

 private:
  std::string folder_ = testing::TempDir() + "host-XXXXXX";
};

TEST_F(HostFile, IsARegularFile) {
  ASSERT_EQ(::mkfifo(path("fifo").c_str(), 0600), 0);
  const std::pair<std::string, const char*> others[] = {
      {path("fifo"), "a FIFO"}, {"/dev/zero", "a device"}, {path("."), "a directory"}};
  for (const auto& [file, kind] : others) {
    const Error error = refused(file);
    EXPECT_EQ(error.code(), EINVAL);
    EXPECT_EQ(error.object(), file);
    EXPECT_THAT(error.reason(), HasSubstr(kind));
  }
  std::ofstream(path("host.json")) << with_functions(std::string(one_disk));
  EXPECT_TRUE(sim::find_host("sim:" + path("host.json")));
}

TEST_F(HostFile, HasAtMost16MiB) {
  std::ofstream(path("host.json")).close();
  std::filesystem::resize_file(path("host.json"), std::uintmax_t{1} << 40);
  const Error error = refused(path("host.json"));
  EXPECT_EQ(error.code(), EINVAL);
  EXPECT_THAT(error.reason(), HasSubstr("more than 16777216 bytes"));
}

}  // namespace hosts_test
}  // namespace postern
