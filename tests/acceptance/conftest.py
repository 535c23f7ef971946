from tests.api.conftest import fake_cache, make_rig

__all__ = ["fake_cache", "make_rig"]
