"""How the guest's CPUs are wanted: policy, threads, emulator, real time, and which vCPUs are dedicated (N4 to N7).

Rules of this file: the order of the checks is Nova's, so that of two faults the same one is named. The trait HW_CPU_HYPERTHREADING is
read as the thread policy that it means and asks nothing more of the node (N5). Source: Nova 34, virt/hardware.py numa_get_constraints.
"""

from typing import NamedTuple, cast, get_args

from earmark.core.flavor.flavor import Flavor
from earmark.core.flavor.groups import HYPERTHREADING, Groups
from earmark.core.flavor.texts import Texts, conflict, invalid, one_of, truth
from earmark.core.flavor.vcpus import every, read_mask
from earmark.core.model.request import CpuPolicy, EmulatorPolicy, ThreadPolicy

CPU_POLICIES = get_args(CpuPolicy)
THREAD_POLICIES = ("prefer", "isolate", "require")
EMULATOR_POLICIES = get_args(EmulatorPolicy)
EMULATOR_KEY = "hw:emulator_threads_policy"
DEDICATED_KEY = "hw:cpu_dedicated_mask"


class CpuWish(NamedTuple):
    """What is wanted of the guest's CPUs; `dedicated` is a mask of vCPUs, all of them under policy dedicated."""

    policy: CpuPolicy
    threads: ThreadPolicy | None
    emulator: EmulatorPolicy | None
    dedicated: int
    realtime: int


def cpu_wish(flavor: Flavor, texts: Texts, groups: Groups) -> CpuWish:
    """Return what the flavor and the image together say of the guest's CPUs; raises InvalidFlavor."""
    policy = _policy(texts)
    threads = _threads(texts)
    realtime = _realtime(texts, flavor.vcpus)
    dedicated = _dedicated(texts, flavor.vcpus)
    emulator = _emulator(texts)
    policy = _policy_of_amounts(policy, emulator, flavor.vcpus, groups)
    threads = _threads_of_trait(threads, texts, groups)
    if policy in (None, "shared"):
        _nothing_dedicated(texts, threads, emulator, dedicated, realtime)
    elif policy == "dedicated":
        if dedicated:
            raise invalid(
                "RequiredMixedInstancePolicy", DEDICATED_KEY, texts.specs[DEDICATED_KEY], "is for hw:cpu_policy mixed, found dedicated"
            )
        dedicated = every(flavor.vcpus)
    elif bool(realtime) == bool(dedicated):
        found = "both" if realtime else "neither"
        why = f"needs {DEDICATED_KEY} or hw:cpu_realtime with hw:cpu_realtime_mask, one of the two, found {found}"
        raise invalid("RequiredMixedOrRealtimeCPUMask", texts.source("cpu_policy"), policy, why)
    else:
        dedicated = dedicated or realtime
    return CpuWish(
        policy=cast("CpuPolicy", policy or "shared"),
        threads=cast("ThreadPolicy | None", threads),
        emulator=cast("EmulatorPolicy | None", emulator),
        dedicated=dedicated,
        realtime=realtime,
    )


def _policy(texts: Texts) -> str | None:
    """Return the CPU policy: the flavor's stands, and an image may not ask for more (N4)."""
    flavor, image = texts.both("cpu_policy")
    one_of(flavor, CPU_POLICIES, "hw:cpu_policy", "InvalidCPUAllocationPolicy")
    one_of(image, CPU_POLICIES, "hw_cpu_policy", "InvalidCPUAllocationPolicy")
    if flavor is not None and image is not None:
        more = {"mixed": ("dedicated",), "shared": ("dedicated", "mixed")}.get(flavor, ())
        if image in more:
            raise conflict("ImageCPUPinningForbidden", "cpu_policy", flavor, image, "an image may not ask for more than its flavor")
    return flavor or image


def _threads(texts: Texts) -> str | None:
    """Return the thread policy: prefer in the flavor stands whatever the image says, any other must be the image's too (N5)."""
    flavor, image = texts.both("cpu_thread_policy")
    one_of(flavor, THREAD_POLICIES, "hw:cpu_thread_policy", "InvalidCPUThreadAllocationPolicy")
    one_of(image, THREAD_POLICIES, "hw_cpu_thread_policy", "InvalidCPUThreadAllocationPolicy")
    if flavor not in (None, "prefer") and image is not None and flavor != image:
        raise conflict("ImageCPUThreadPolicyForbidden", "cpu_thread_policy", str(flavor), image, "they must be equal")
    return flavor or image


def _emulator(texts: Texts) -> str | None:
    """Return the policy of emulator threads, which only a flavor sets (N19)."""
    return one_of(texts.specs.get(EMULATOR_KEY) or None, EMULATOR_POLICIES, EMULATOR_KEY, "InvalidEmulatorThreadsPolicy")


def _realtime(texts: Texts, count: int) -> int:
    """Return the mask of real-time vCPUs, 0 for none (N7); the image's mask goes before the flavor's."""
    if not truth(texts.specs.get("hw:cpu_realtime") or None, "hw:cpu_realtime"):
        return 0
    flavor, image = texts.both("cpu_realtime_mask")
    key, text = ("hw_cpu_realtime_mask", image) if image is not None else ("hw:cpu_realtime_mask", flavor)
    wanted = read_mask(f"0-{count - 1}" if text is None else text, count, key)
    if wanted.empty:
        raise invalid("RealtimeMaskNotFoundOrInvalid", key, text, "no vCPU is real-time")
    if _emulator(texts) is None and wanted.mask == every(count):
        key, text = ("hw:cpu_realtime", texts.specs["hw:cpu_realtime"]) if text is None else (key, text)
        why = f"all {count} vCPUs are real-time: leave some out by hw:cpu_realtime_mask, or say by {EMULATOR_KEY} where the emulator runs"
        raise invalid("RealtimeMaskNotFoundOrInvalid", key, text, why)
    if wanted.beyond is not None:
        raise invalid("RealtimeMaskNotFoundOrInvalid", key, text, f"vCPU {wanted.beyond} is not one of the flavor's {count}")
    return wanted.mask


def _dedicated(texts: Texts, count: int) -> int:
    """Return the mask of dedicated vCPUs, 0 if none is given: some but not all of the flavor's (N6)."""
    text = texts.specs.get(DEDICATED_KEY) or None
    if text is None:
        return 0
    wanted = read_mask(text, count, DEDICATED_KEY)
    if wanted.beyond is not None or wanted.mask in (0, every(count)):
        raise invalid(
            "InvalidMixedInstanceDedicatedMask", DEDICATED_KEY, text, f"must name some, but not all, of the flavor's {count} vCPUs"
        )
    return wanted.mask


def _policy_of_amounts(policy: str | None, emulator: str | None, count: int, groups: Groups) -> str | None:
    """Return the policy after the other spelling of it: resources:PCPU means dedicated, resources:VCPU shared (N4)."""
    vcpu, pcpu = groups.total("VCPU"), groups.total("PCPU")
    if policy is not None and (vcpu or pcpu):
        why = f"hw:cpu_policy or hw_cpu_policy says {policy} already: use one or the other"
        raise invalid("InvalidRequest", groups.source("PCPU" if pcpu else "VCPU"), pcpu or vcpu, why)
    if vcpu and pcpu:
        raise invalid("InvalidRequest", groups.source("PCPU"), pcpu, f"{groups.source('VCPU')} = {vcpu} is there too: use one or the other")
    if pcpu:
        need = count + (1 if emulator == "isolate" else 0)
        if pcpu != need:
            extra = f" and one for {EMULATOR_KEY} isolate" if need > count else ""
            raise invalid("InvalidRequest", groups.source("PCPU"), pcpu, f"not {need}: one for each of {count} vCPUs{extra}")
        return "dedicated"
    return "shared" if vcpu else policy


def _threads_of_trait(threads: str | None, texts: Texts, groups: Groups) -> str | None:
    """Return the thread policy after the other spelling of it: the trait required means require, forbidden isolate (N5)."""
    said = {group.traits[HYPERTHREADING] for group in groups.by_suffix.values() if HYPERTHREADING in group.traits}
    key = f"trait:{HYPERTHREADING}"
    if len(said) > 1:
        raise invalid("InvalidRequest", key, "required", "it is forbidden in another group")
    trait = next(iter(said), None) or ("required" if texts.image.get(key) == "required" else None)
    if trait is None:
        return threads
    if threads is not None:
        raise invalid("InvalidRequest", key, trait, f"the thread policy is {threads} already: use one or the other")
    return "isolate" if trait == "forbidden" else "require"


def _nothing_dedicated(texts: Texts, threads: str | None, emulator: str | None, dedicated: int, realtime: int) -> None:
    """Raise InvalidFlavor if something is asked for that needs dedicated CPUs."""
    why = "needs dedicated CPUs: hw:cpu_policy dedicated or mixed"
    if threads is not None:
        key, found = texts.source("cpu_thread_policy"), threads
        if not any(texts.both("cpu_thread_policy")):
            key, found = f"trait:{HYPERTHREADING}", "required" if threads == "require" else "forbidden"
        raise invalid("CPUThreadPolicyConfigurationInvalid", key, found, why)
    if emulator == "isolate":
        raise invalid("BadRequirementEmulatorThreadsPolicy", EMULATOR_KEY, emulator, why)
    if dedicated:
        raise invalid("RequiredMixedInstancePolicy", DEDICATED_KEY, texts.specs[DEDICATED_KEY], "is for hw:cpu_policy mixed")
    if realtime:
        raise invalid("RealtimeConfigurationInvalid", "hw:cpu_realtime", texts.specs["hw:cpu_realtime"], why)
