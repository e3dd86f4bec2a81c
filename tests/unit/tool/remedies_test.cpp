// SPDX-License-Identifier: Apache-2.0
// The tool's text of every remedy.
#include "text/remedies.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/remedy.hpp"

namespace postern::tool {
namespace remedies_test {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(ToolsRemedies, AreAllWordedWithTheArgumentsThatTheyHave) {
  for (std::size_t at = 0; at < remedy_count; ++at) {
    const auto code = static_cast<RemedyCode>(at);
    const Remedy remedy{.code = code, .arguments = std::vector<std::string>(argument_count(code), "X")};
    EXPECT_FALSE(words_of(remedy).empty()) << to_string(code);
    EXPECT_THAT(words_of(remedy), Not(HasSubstr("{"))) << to_string(code);
  }
}

TEST(ToolsRemedies, NameTheToolsCommandsInsteadOfFunctions) {
  EXPECT_EQ(words_of(remedy<RemedyCode::bind_to_vfio_driver>("0000:00:01.0")), "\"postern bind 0000:00:01.0\"");
  for (const RemedyCode code : {RemedyCode::bind_to_vfio_driver, RemedyCode::bind_if_spare, RemedyCode::list_devices,
                                RemedyCode::use_other_backend, RemedyCode::see_causes, RemedyCode::bind_whole_group,
                                RemedyCode::reset_and_open_again}) {
    const std::string text = words_of(Remedy{.code = code, .arguments = {"X"}});
    EXPECT_THAT(text, HasSubstr("\"postern "));
    EXPECT_THAT(text, Not(HasSubstr("()")));
  }
}

TEST(ToolsRemedies, AreTheLibrarysWhereTheToolHasNoCommand) {
  EXPECT_EQ(words_of(Remedies(RemedyCode::try_again).add("look at it")), "try again; look at it");
}

}  // namespace remedies_test
}  // namespace postern::tool
