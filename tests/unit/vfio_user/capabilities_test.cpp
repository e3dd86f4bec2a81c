// SPDX-License-Identifier: Apache-2.0
// Capabilities read from JSON, as QEMU sends it and as nobody should, and written as QEMU takes them.
#include "vfio_user/wire/capabilities.hpp"

#include <gmock/gmock.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "unit/vfio_user/messages.hpp"
#include "vfio_user/wire/request.hpp"

namespace postern::vfio_user {
namespace capabilities_test {

using ::testing::UnorderedElementsAre;

int error_of(std::string_view json) {
  const auto known = parse_capabilities(json);
  return known ? 0 : known.error();
}
// One capability.
std::string of(std::string_view name, std::string_view value) {
  return R"({"capabilities": {")" + std::string(name) + R"(": )" + std::string(value) + "}}";
}

TEST(Capabilities, OfQemuAreRead) {
  const auto known = parse_capabilities(rig::qemu_capabilities);
  ASSERT_TRUE(known);
  EXPECT_EQ(known->max_msg_fds, 16U);
  EXPECT_EQ(known->max_data_xfer_size, 1048576U);
  EXPECT_EQ(known->max_dma_maps, 65535U);
  EXPECT_EQ(known->pgsizes, 4096U);
  EXPECT_TRUE(known->write_multiple);
}

TEST(Capabilities, ThatAreNotToldAreTheSpecifications) {
  for (const char* json : {"", "{}", R"({"capabilities": {}})", R"({"other": [1]})",
                           R"({"capabilities": {"twin_socket": {"supported": true}, "migration": null}})"}) {
    const auto known = parse_capabilities(json);
    ASSERT_TRUE(known) << json;
    EXPECT_EQ(known->max_msg_fds, 1U) << json;
    EXPECT_EQ(known->max_data_xfer_size, 1048576U) << json;
    EXPECT_EQ(known->max_dma_maps, 65535U) << json;
    EXPECT_EQ(known->pgsizes, 4096U) << json;
    EXPECT_FALSE(known->write_multiple) << json;
  }
}

TEST(Capabilities, ThatAreNoJsonAreRefused) {
  for (const char* text :
       {"{", "}", "nonsense", " ", "{\"capabilities\": {}", R"({"capabilities": {}}})", R"({"capabilities": {},})",
        R"({'capabilities': {}})", "{\"capabilities\": {}} trailing", "{\"\xff\": 1}",
        "{\"capabilities\": {\"\xc3\x28\": 1}}", "\xef\xbb", "/* */ {}", R"({"capabilities": {"pgsizes": 0x1000}})",
        R"({"capabilities": {"pgsizes": 04096}})", R"({"capabilities": {"pgsizes": NaN}})"})
    EXPECT_EQ(error_of(text), EINVAL) << text;
}

TEST(Capabilities, ThatAreNoObjectAreRefused) {
  for (const char* json :
       {"null", "true", "1", "\"capabilities\"", "[]", R"([{"capabilities": {}}])", R"({"capabilities": null})",
        R"({"capabilities": []})", R"({"capabilities": 1})", R"({"capabilities": "max_msg_fds"})"})
    EXPECT_EQ(error_of(json), EINVAL) << json;
}

TEST(Capabilities, NestedDeeplyAreReadOrRefused) {
  for (const std::size_t depth : {std::size_t{100}, longest_version / 2, std::size_t{1} << 20}) {
    const std::string open(depth, '[');
    const std::string close(depth, ']');
    EXPECT_EQ(error_of(open), EINVAL) << depth;
    EXPECT_EQ(error_of(open + close), EINVAL) << depth;
    EXPECT_EQ(error_of(of("unknown", open + close)), 0) << depth;
    EXPECT_EQ(error_of(of("pgsizes", open + close)), EINVAL) << depth;
  }
}

TEST(Capabilities, ThatAreNumbersArePositive) {
  for (const char* name : {"max_msg_fds", "max_data_xfer_size", "max_dma_maps", "pgsizes"}) {
    for (const char* value : {"1", "4096", "4294967296", "9223372036854775808", "18446744073709551615"})
      EXPECT_EQ(error_of(of(name, value)), 0) << name << value;
    for (const char* value : {"0", "-0", "-1", "-9223372036854775808", "18446744073709551616", "1.5", "4096.0", "1e3",
                              "1e400", "\"4096\"", "true", "null", "[4096]", "{}"})
      EXPECT_EQ(error_of(of(name, value)), EINVAL) << name << value;
  }
  EXPECT_EQ(parse_capabilities(of("pgsizes", "18446744073709551615"))->pgsizes, rig::most64);
}

TEST(Capabilities, ThatAreTrueOrFalseAreNothingElse) {
  EXPECT_TRUE(parse_capabilities(of("write_multiple", "true"))->write_multiple);
  EXPECT_FALSE(parse_capabilities(of("write_multiple", "false"))->write_multiple);
  for (const char* value : {"0", "1", "null", "\"true\"", "[]"})
    EXPECT_EQ(error_of(of("write_multiple", value)), EINVAL) << value;
}

TEST(Capabilities, ThatOccurTwiceAreTheLast) {
  EXPECT_EQ(parse_capabilities(R"({"capabilities": {"max_msg_fds": 2, "max_msg_fds": 3}})")->max_msg_fds, 3U);
  EXPECT_EQ(error_of(R"({"capabilities": {"max_msg_fds": 2, "max_msg_fds": "3"}})"), EINVAL);
  EXPECT_EQ(parse_capabilities(R"({"capabilities": {"pgsizes": 8192}, "capabilities": {}})")->pgsizes, 4096U);
}

TEST(Capabilities, AreReadAsTheyWereWritten) {
  const Capabilities written{
      .max_msg_fds = 8, .max_data_xfer_size = 4096, .max_dma_maps = 7, .pgsizes = 0x40201000, .write_multiple = true};
  const auto read = parse_capabilities(to_json(written));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->max_msg_fds, 8U);
  EXPECT_EQ(read->max_data_xfer_size, 4096U);
  EXPECT_EQ(read->max_dma_maps, 7U);
  EXPECT_EQ(read->pgsizes, 0x40201000U);
  EXPECT_TRUE(read->write_multiple);
}

TEST(Capabilities, OfAServerAreThoseThatQemuKnows) {
  const auto json = nlohmann::json::parse(to_json({.write_multiple = true}));
  ASSERT_TRUE(json.is_object());
  ASSERT_EQ(json.size(), 1U);
  std::vector<std::string> names;
  for (const auto& [name, value] : json.at("capabilities").items()) names.push_back(name);
  EXPECT_THAT(names,
              UnorderedElementsAre("max_msg_fds", "max_data_xfer_size", "max_dma_maps", "pgsizes", "write_multiple"));
}

// QEMU reads the answer into the memory that its own message has.
TEST(Capabilities, OfAServerAreNoLongerThanThoseOfQemu) {
  const std::string longest = to_json({.max_msg_fds = most_fds,
                                       .max_data_xfer_size = longest_transfer,
                                       .max_dma_maps = 65535,
                                       .pgsizes = std::uint64_t{1} << 63,
                                       .write_multiple = true});
  EXPECT_LE(sizeof(Header) + 4 + longest.size() + 1, 214U);
}

}  // namespace capabilities_test
}  // namespace postern::vfio_user
