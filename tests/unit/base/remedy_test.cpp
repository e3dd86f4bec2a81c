// SPDX-License-Identifier: Apache-2.0
// The text of every remedy, and lists of remedies.
#include "base/remedy.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace postern {
namespace remedy_test {

using ::testing::HasSubstr;
using ::testing::Not;

// A remedy with the right number of arguments, all of which its text must contain.
Remedy example_of(RemedyCode code) {
  Remedy remedy{.code = code, .arguments = {}};
  for (std::size_t at = 0; at < argument_count(code); ++at) remedy.arguments.push_back("argument" + std::to_string(at));
  return remedy;
}

TEST(RemedyWords, EveryCodeHasANameAndATextThatNeverNamesTheTool) {
  std::set<std::string_view> names;
  std::set<std::string> texts;
  for (std::size_t at = 0; at < remedy_count; ++at) {
    const Remedy remedy = example_of(static_cast<RemedyCode>(at));
    const std::string text = remedy.text();
    EXPECT_TRUE(names.insert(to_string(remedy.code)).second) << to_string(remedy.code);
    EXPECT_TRUE(texts.insert(text).second) << text << ": said by another code, too";
    EXPECT_FALSE(text.empty());
    EXPECT_THAT(text, Not(HasSubstr("postern "))) << "that is the tool, which a program need not have";
    EXPECT_THAT(text, Not(HasSubstr("{"))) << "an argument that is not given";
    EXPECT_EQ(std::count(text.begin(), text.end(), '"') % 2, 0) << "a command is in quotes: " << text;
    // The library's text does not use the device; programs with a command for it do.
    if (remedy.code == RemedyCode::bind_whole_group) continue;
    for (const std::string& argument : remedy.arguments) EXPECT_THAT(text, HasSubstr(argument));
  }
}

TEST(RemedyWords, PutEachArgumentWhereThePatternHasIt) {
  EXPECT_EQ(remedy<RemedyCode::load_driver>("vfio-pci").text(), "load it with \"modprobe vfio-pci\"");
  EXPECT_EQ((remedy<RemedyCode::make_node>("/dev/vfio/vfio", "10", "196").text()),
            "or create it with \"mknod /dev/vfio/vfio c 10 196\"");
  EXPECT_EQ(remedy<RemedyCode::detach_group_mate>("0000:01:00.1").text(),
            "detach 0000:01:00.1, move this device, and then attach 0000:01:00.1 to the new container, too");
  const Remedy bind = remedy<RemedyCode::bind_to_vfio_driver>("0000:00:01.0");
  EXPECT_EQ(bind.text("{0} an vfio-pci binden"), "0000:00:01.0 an vfio-pci binden");
}

TEST(RemedyWords, AreWrittenAsTheyAreWhereThereIsNoSuchArgument) {
  const Remedy remedy{.code = RemedyCode::load_driver, .arguments = {}};
  EXPECT_EQ(remedy.text(), "load it with \"modprobe {0}\"");
  EXPECT_EQ(remedy.text("{} {x} {1"), "{} {x} {1");
  EXPECT_EQ((Remedy{.code = RemedyCode::other, .arguments = {"{0} {1}"}}.text()), "{0} {1}") << "nor within one";
}

TEST(RemedyWords, OfANewerVersionsCodeAreItsFirstArgument) {
  const Remedy unknown{.code = static_cast<RemedyCode>(250), .arguments = {"text"}};
  EXPECT_EQ(unknown.text(), "text");
  EXPECT_EQ(to_string(unknown.code), "other");
}

TEST(Remedies, AreMadeOfACodeATextOrSeveral) {
  EXPECT_TRUE(Remedies().empty());
  EXPECT_TRUE(Remedies("").empty());
  EXPECT_EQ(Remedies(RemedyCode::try_again).text(), "try again");
  EXPECT_EQ(Remedies("stop it").begin()->code, RemedyCode::other);
  EXPECT_EQ(Remedies("stop it").text(), "stop it");
  Remedies both = remedy<RemedyCode::use_page_multiples>("4 KiB");
  both.add(RemedyCode::try_again);
  EXPECT_EQ(both.text(), "use multiples of 4 KiB; try again");
  EXPECT_EQ(both.size(), 2U);
  EXPECT_TRUE(both.contains(RemedyCode::try_again));
  EXPECT_FALSE(both.contains(RemedyCode::other));
}

}  // namespace remedy_test
}  // namespace postern
