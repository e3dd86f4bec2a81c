// SPDX-License-Identifier: Apache-2.0
// BindingWorker: moves a disk between its driver and vfio-pci, and lists all devices.
#include <algorithm>
#include <optional>
#include <postern/attach.hpp>
#include <postern/binding.hpp>
#include <postern/pci_function.hpp>

#include "stress/worker.hpp"

namespace postern::stress {
namespace {

class BindingWorker final : public Worker {
 public:
  BindingWorker(Kernel& kernel, PciAddress disk, std::uint64_t seed) : kernel_(kernel), address_(disk), random_(seed) {}

  [[nodiscard]] std::string name() const override { return "binding " + to_string(address_); }

  void step() override {
    if (random_.one_in(3)) return list();
    const HostDevice device = found().host;
    if (!before_) {
      check(device.driver == "nvme", "the device is not with its driver");
      before_ = must(bind_to_driver(kernel_, device, "vfio-pci"));
      check(before_->driver == "nvme", "another driver is remembered");
      check(found().host.driver == "vfio-pci", "the device is not with vfio-pci");
    } else if (random_.one_in(2)) {
      auto attached = must(attach(kernel_, device, {.backend = any_backend(random_)}));
      if (random_.one_in(2)) must(attached.detach());
    } else {
      restore();
    }
  }

  void finish() override {
    if (before_) restore();
  }

 private:
  void restore() {
    must(restore_binding(kernel_, *before_));
    const Binding after = must(read_binding(kernel_, found().host));
    check(after.driver == "nvme", "the device did not come back to its driver");
    check(after.driver_override == before_->driver_override, "the device keeps another driver_override");
    before_.reset();
  }

  void list() {
    const auto functions = must(list_pci_functions(kernel_));
    check(functions.size() == 15, "there are more or fewer devices");
    check(std::is_sorted(functions.begin(), functions.end(),
                         [](const auto& a, const auto& b) { return a.address < b.address; }),
          "the devices are out of order");
    (void)find_pci_names(functions[random_.below(functions.size())]);
    (void)must(find_iommu_group(kernel_, functions[random_.below(functions.size())].host.iommu_group.value()));
  }

  [[nodiscard]] PciFunction found() const { return must(find_pci_function(kernel_, address_)); }

  Kernel& kernel_;
  PciAddress address_;
  Random random_;
  std::optional<Binding> before_;
};

}  // namespace

std::unique_ptr<Worker> make_binding_worker(Kernel& kernel, PciAddress disk, std::uint64_t seed) {
  return std::make_unique<BindingWorker>(kernel, disk, seed);
}

}  // namespace postern::stress
