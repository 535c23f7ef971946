"""Tests of the data path, once more with worker processes: what they hold must not depend on how many serve."""

import pytest

from tests.api.rig import Rig
from tests.api.test_cancellations import (
    test_a_hang_up_in_the_middle_of_a_stream_closes_the_engines_connection,
    test_a_hang_up_while_the_engine_starts_gives_the_wait_up,
    test_an_engine_that_dies_in_the_middle_of_a_stream_ends_it_with_an_event,
    test_an_operator_who_forces_cuts_streams_off_with_an_event,
    test_stopping_a_model_that_starts_refuses_those_who_wait,
)
from tests.api.test_proxy import (
    test_a_caller_may_bound_its_wait,
    test_an_answer_says_how_its_engine_came_to_be_awake,
    test_development_endpoints_stay_out_of_reach_while_the_engine_is_awake,
    test_every_inference_route_reaches_its_engine_through_the_openai_client,
    test_twenty_first_requests_at_once_are_one_start,
)
from tests.api.worker_rig import make_worker_rigs

__all__ = [
    "test_a_caller_may_bound_its_wait",
    "test_a_hang_up_in_the_middle_of_a_stream_closes_the_engines_connection",
    "test_a_hang_up_while_the_engine_starts_gives_the_wait_up",
    "test_an_answer_says_how_its_engine_came_to_be_awake",
    "test_an_engine_that_dies_in_the_middle_of_a_stream_ends_it_with_an_event",
    "test_an_operator_who_forces_cuts_streams_off_with_an_event",
    "test_development_endpoints_stay_out_of_reach_while_the_engine_is_awake",
    "test_every_inference_route_reaches_its_engine_through_the_openai_client",
    "test_stopping_a_model_that_starts_refuses_those_who_wait",
    "test_twenty_first_requests_at_once_are_one_start",
]


@pytest.fixture
def rig(make_rig) -> Rig:
    return make_rig()


@pytest.fixture(name="make_rig")
def make_rig_with_workers(make_rig):
    return make_worker_rigs(make_rig)
