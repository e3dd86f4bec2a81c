// SPDX-License-Identifier: Apache-2.0
// Errors as text and as JSON.
#include "text/errors.hpp"

#include <gtest/gtest.h>

#include <cerrno>

namespace postern::tool {
namespace errors_test {

Error locked() {
  return Error({.code = ENOMEM,
                .operation = "VFIO_IOMMU_MAP_DMA",
                .object = "map 0x1000+64 MiB into container type1",
                .reason = "locked memory is limited to 8 MiB",
                .remedy = "\"ulimit -l 65536\""});
}

Error with_causes() {
  Error::Details details{.code = ENODEV,
                         .operation = "choose backend",
                         .object = "0000:00:01.0",
                         .reason = "none",
                         .remedy = "",
                         .causes = {}};
  details.causes.push_back(locked());
  details.causes.push_back(
      Error({.code = ENOENT, .operation = "open", .object = "/dev/iommu", .reason = "", .remedy = "", .causes = {}}));
  return Error(std::move(details));
}

// Sets the name given by --host during its lifetime.
struct NamedHost {
  explicit NamedHost(const std::string& name) { name_host(name); }
  NamedHost(const NamedHost&) = delete;
  NamedHost& operator=(const NamedHost&) = delete;
  ~NamedHost() { name_host(""); }
};

TEST(ForHost, LeavesRemediesOfThisHostAsTheyAre) {
  EXPECT_EQ(for_host("\"postern bind 0000:00:02.0\""), "\"postern bind 0000:00:02.0\"");
}

TEST(ForHost, PutsTheHostIntoEachCommandOfPosterns) {
  const NamedHost named("sim:pc");
  EXPECT_EQ(for_host("reset it: \"postern reset 00:01.0 --bus\", or see \"postern doctor 00:01.0\"; \"ulimit -l 4\""),
            "reset it: \"postern reset 00:01.0 --bus --host sim:pc\", or see \"postern doctor 00:01.0 --host sim:pc\"; "
            "\"ulimit -l 4\"");
  EXPECT_EQ(for_host("see \"postern check --help\""), "see \"postern check --help\"");
}

TEST(ForHost, SaysThatASimulatedHostBeginsAnewWhereSomethingIsToBeBound) {
  const NamedHost named("sim:./my host's.json");
  EXPECT_EQ(for_host("\"postern bind 00:02.0\""),
            "\"postern bind 00:02.0 --host 'sim:./my host'\\''s.json'\"; a simulated host starts fresh in each run: to "
            "have it bound, describe the function with \"driver\": \"vfio-pci\"");
}

TEST(ForHost, IsDoneInJsonToo) {
  const NamedHost named("sim");
  const Error error({.code = ENODEV,
                     .operation = "probe",
                     .object = "x",
                     .reason = "",
                     .remedy = "\"postern doctor x\"",
                     .causes = {}});
  EXPECT_EQ(error_json(error)["remedy"], "\"postern doctor x --host sim\"");
}

TEST(ErrorLine, SaysTheObjectFirstAndTheErrnoLast) {
  EXPECT_EQ(error_line(locked()),
            "map 0x1000+64 MiB into container type1: locked memory is limited to 8 MiB (VFIO_IOMMU_MAP_DMA: ENOMEM)");
}

TEST(ErrorLine, SaysWhatTheErrnoMeansWhereNothingMoreIsKnown) {
  const Error error(
      {.code = ENOENT, .operation = "open", .object = "/dev/iommu", .reason = "", .remedy = "", .causes = {}});
  EXPECT_EQ(error_line(error), "/dev/iommu: No such file or directory (open: ENOENT)");
}

TEST(ErrorDetails, PutsTheRemedyAndEveryCauseOnLinesOfTheirOwn) {
  EXPECT_EQ(
      error_details(with_causes(), {}, 2),
      "  - map 0x1000+64 MiB into container type1: locked memory is limited to 8 MiB (VFIO_IOMMU_MAP_DMA: ENOMEM)\n"
      "    remedy: \"ulimit -l 65536\"\n"
      "  - /dev/iommu: No such file or directory (open: ENOENT)\n");
}

TEST(ErrorDetails, HasEqualCausesOnce) {
  Error::Details details = with_causes().details();
  details.causes.push_back(locked());
  EXPECT_EQ(error_details(Error(details), {}, 2), error_details(with_causes(), {}, 2));
  EXPECT_EQ(Error(details).message(), with_causes().message());
  EXPECT_EQ(error_json(Error(details))["causes"].size(), 3U) << "programs get each";
}

TEST(ErrorJson, HasEveryPart) {
  const Json json = error_json(with_causes());
  EXPECT_EQ(json["operation"], "choose backend");
  EXPECT_EQ(json["object"], "0000:00:01.0");
  EXPECT_EQ(json["errno"], "ENODEV");
  EXPECT_EQ(json["code"], ENODEV);
  EXPECT_EQ(json["reason"], "none");
  EXPECT_EQ(json["remedy"], "");
  ASSERT_EQ(json["causes"].size(), 2U);
  EXPECT_EQ(json["causes"][0]["remedy"], "\"ulimit -l 65536\"");
  EXPECT_EQ(json["causes"][1]["reason"], "No such file or directory");
}

TEST(ErrorJson, HasTheKindAndEachRemedyWithItsCode) {
  const Json json =
      error_json(Error({.code = EPERM,
                        .kind = ErrorKind::not_bound,
                        .object = "0000:00:01.0",
                        .remedy = Remedies({{.code = RemedyCode::bind_to_vfio_driver, .arguments = {"0000:00:01.0"}},
                                            {.code = RemedyCode::try_again, .arguments = {}}})}));
  EXPECT_EQ(json["kind"], "not_bound");
  EXPECT_EQ(json["remedy"], "\"postern bind 0000:00:01.0\"; try again");
  EXPECT_EQ(json["remedies"][0], Json({{"code", "bind_to_vfio_driver"},
                                       {"arguments", {"0000:00:01.0"}},
                                       {"text", "\"postern bind 0000:00:01.0\""}}));
  EXPECT_EQ(json["remedies"][1]["code"], "try_again");
  EXPECT_TRUE(json["remedies"][1]["arguments"].empty());
}

TEST(ErrorLine, IsOneLineWhateverTheErrorHasInIt) {
  const Error error({.code = EBUSY,
                     .operation = "bind",
                     .object = "0000:00:01.0\033[2J",
                     .reason = "a process (\nok  all is well)",
                     .remedy = "end \"\033[31m\"",
                     .causes = {}});
  EXPECT_EQ(error_line(error), "0000:00:01.0\\x1b[2J: a process (\\x0aok  all is well) (bind: EBUSY)");
  EXPECT_EQ(error_details(error, {}, 0), "remedy: end \"\\x1b[31m\"\n");
}

TEST(JsonText, EscapesEveryControlCharacter) {
  const std::string text = json_text({{"name", "\033[2J\x7f\xc2\x9b\xc3\xbc"}});
  EXPECT_NE(text.find("\"\\u001b[2J\\u007f\\u009b\xc3\xbc\""), std::string::npos) << text;
  EXPECT_EQ(Json::parse(text)["name"], "\033[2J\x7f\xc2\x9b\xc3\xbc");
}

TEST(JsonText, TakesBytesThatAreNoUtf8) {
  EXPECT_NE(json_text({{"serial", "a\xff"}}).find("a\xef\xbf\xbd"), std::string::npos);
}

}  // namespace errors_test
}  // namespace postern::tool
