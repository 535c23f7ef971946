from tests.api.conftest import fake_cache

__all__ = ["fake_cache"]
