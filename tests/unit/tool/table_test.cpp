// SPDX-License-Identifier: Apache-2.0
// Columns: aligned, shortened on a narrow terminal, and without trailing blanks.
#include "text/table.hpp"

#include <gtest/gtest.h>

namespace postern::tool {
namespace table_test {

Terminal wide(std::size_t width) { return {.interactive = true, .colour = false, .width = width}; }

Table devices() {
  Table table({{"ADDRESS"}, {"DRIVER"}, {"NAME", Fit::shortened}});
  table.add_row({"0000:00:01.0", "nvme", "QEMU NVM Express Controller"});
  table.add_row({"0000:00:1f.2", "-", "82801IR/IO/IH SATA Controller in AHCI mode"});
  return table;
}

TEST(Table, MakesEachColumnAsWideAsItsWidestCell) {
  EXPECT_EQ(devices().text({}),
            "ADDRESS       DRIVER  NAME\n"
            "0000:00:01.0  nvme    QEMU NVM Express Controller\n"
            "0000:00:1f.2  -       82801IR/IO/IH SATA Controller in AHCI mode\n");
}

TEST(Table, ShortensTheFlexibleColumnOnANarrowTerminal) {
  EXPECT_EQ(devices().text(wide(42)),
            "ADDRESS       DRIVER  NAME\n"
            "0000:00:01.0  nvme    QEMU NVM Express ...\n"
            "0000:00:1f.2  -       82801IR/IO/IH SAT...\n");
}

TEST(Table, IsCutNowhereWhereNoTerminalIsKnown) { EXPECT_EQ(devices().text({}).find("..."), std::string::npos); }

TEST(Table, ShortensTheWidestOfSeveralFlexibleColumnsFirst) {
  Table table({{"A", Fit::shortened}, {"B", Fit::shortened}});
  table.add_row({std::string(20, 'a'), std::string(40, 'b')});
  EXPECT_EQ(table.text(wide(44)),
            "A                     B\n" + std::string(20, 'a') + "  " + std::string(19, 'b') + "...\n");
}

TEST(Table, StaysReadableWhereATerminalIsFarTooNarrow) {
  Table table({{"A"}, {"B", Fit::shortened}});
  table.add_row({std::string(30, 'a'), std::string(30, 'b')});
  EXPECT_EQ(table.text(wide(10)), "A                               B\n" + std::string(30, 'a') + "  bbbbbbbbb...\n");
}

TEST(Table, FoldsTheLastColumnBeneathItselfWhereThatIsAsked) {
  Table table({{}, {"", Fit::folded}}, 2);
  table.add_row({"addresses", "0x0-0xfff (4 KiB), 0x2000-0x2fff (4 KiB)"});
  table.add_row({"limit", "none"});
  EXPECT_EQ(table.text(wide(36)),
            "  addresses  0x0-0xfff (4 KiB),\n"
            "             0x2000-0x2fff (4 KiB)\n"
            "  limit      none\n");
}

TEST(Table, LeavesAColumnOutThatIsEmptyInEveryRow) {
  Table table({{"A"}, {"EMPTY"}, {"B"}});
  table.add_row({"1", "", "2"});
  EXPECT_EQ(table.text({}), "A  B\n1  2\n");
}

TEST(Table, HasNoLineOfHeadingsWhereThereAreNone) {
  Table table({{}, {}}, 2);
  table.add_row({"driver", "vfio-pci"});
  table.add_row({"IOMMU group", "2"});
  EXPECT_EQ(table.text({}), "  driver       vfio-pci\n  IOMMU group  2\n");
}

TEST(Table, CountsTheCharactersOfUtf8AndNotItsBytes) {
  Table table({{"A"}, {"B"}});
  table.add_row({"Gerät", "größer"});
  table.add_row({"device", "y"});
  EXPECT_EQ(table.text({}), "A       B\nGerät   größer\ndevice  y\n");
}

TEST(Table, CutsNoCharacterInTwo) {
  Table table({{"A", Fit::shortened}});
  table.add_row({"ääääääääääääääääääää"});
  EXPECT_EQ(table.text(wide(12)), "A\näääääääää...\n");
}

TEST(Table, EndsNoLineWithBlanks) {
  Table table({{"A"}, {"B"}});
  table.add_row({"1", "2"});
  table.add_row({"1"});
  EXPECT_EQ(table.text({}), "A  B\n1  2\n1\n");
}

TEST(Table, HasNoControlCharacterOfItsCells) {
  Table table({{"NAME"}});
  table.add_row({"a\nb\033"});
  EXPECT_EQ(table.text({}), "NAME\na\\x0ab\\x1b\n");
}

}  // namespace table_test
}  // namespace postern::tool
