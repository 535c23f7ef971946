"""What is measured of this machine's memories, beyond one device."""

from vllama.config import VllamaConfig
from vllama.host.memories import ZYGOTE_BYTES, Memories


def test_a_zygote_that_loads_is_measured_as_what_it_will_be() -> None:
    memories = Memories(VllamaConfig(memory_limit=2**30))
    (settled,) = memories.measure({}, ())
    (loading,) = memories.measure({}, (), loading=True)
    assert (settled.shared_bytes, settled.free_bytes) == (0, 2**30)
    assert (loading.shared_bytes, loading.free_bytes) == (ZYGOTE_BYTES, 2**30 - ZYGOTE_BYTES)


def test_so_is_not_what_a_limit_has_no_room_for() -> None:
    memories = Memories(VllamaConfig(memory_limit=2**20))
    (loading,) = memories.measure({}, (), loading=True)
    assert loading.free_bytes == 0
