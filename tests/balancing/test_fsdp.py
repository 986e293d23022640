from tests.launching import launch


def test_sharded_gradients_give_the_gramian_and_the_update_of_whole_ones():
    launch("tests.balancing.fsdp_gramian", processes=2)
