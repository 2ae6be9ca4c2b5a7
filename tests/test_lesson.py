"""The notebook's own definitions against cases worked out by hand."""

import copy
import math
import random
import sys

import numpy as np
import pytest
import torch


def tiny(lesson, **changes):
    """Settings for a run of a second."""
    small = {"MAX_STEPS": 400, "EVAL_EVERY": 200, "MEMORY_SIZE": 1000, "SEED": 77}
    return lesson.change_settings(lesson.settings, **{**small, **changes})


def tiny_run(lesson, **changes):
    return lesson.train(lesson.make_run(tiny(lesson, **changes), torch.device("cpu")))


def agent_of(lesson, **changes):
    return lesson.make_agent(tiny(lesson, **changes), torch.device("cpu"), 4, 2)


def stand_in(*q_values):
    """A network that gives every state the same Q-values."""
    return lambda states: torch.tensor([q_values]).repeat(len(states), 1)


def batch_of(lesson, terminated, reward=1.0):
    n = len(terminated)
    return lesson.Transition(
        state=torch.zeros(n, 4),
        action=torch.zeros(n, 1, dtype=torch.int64),
        next_state=torch.zeros(n, 4),
        reward=torch.full((n,), reward),
        terminated=torch.tensor(terminated),
    )


# --- the simulator -------------------------------------------------------------------------


def test_first_observation_is_the_one_of_every_supported_gym(lesson):
    env = lesson.make_env("CartPole-v1")
    first = lesson.reset_env(env, seed=1)
    assert np.allclose(first[:2], [0.00118216, 0.04504637])


@pytest.mark.parametrize("version", ["0.24.1", "0.21.0", "0.27.0", "1.0.0", "0.260"])
def test_other_gym_versions_are_refused_with_the_install_line(lesson, version):
    with pytest.raises(ImportError, match=rf"{version}.*pip install \"gym==0.26.2\""):
        lesson.check_gym_version("gym", version)


@pytest.mark.parametrize(
    "name,version",
    [("gym", "0.25.0"), ("gym", "0.26.2"), ("gymnasium", "0.26.0"), ("gymnasium", "1.3.0")],
)
def test_supported_versions_are_accepted(lesson, name, version):
    lesson.check_gym_version(name, version)


def test_gymnasium_before_0_26_is_refused(lesson):
    with pytest.raises(ImportError, match="Gymnasium 0.25.1"):
        lesson.check_gym_version("gymnasium", "0.25.1")


def test_without_any_simulator_the_error_says_what_to_install(lesson, monkeypatch):
    for name in ("gym", "gymnasium"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="Neither gym nor Gymnasium.*pip install"):
        lesson.import_gym()


def test_without_pygame_there_are_no_frames_but_a_hint(lesson, monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    steps, frames = lesson.film_episode(lesson.random_policy(0), 0, "CartPole-v1")
    assert steps > 5 and frames == []
    assert "pip install pygame" in lesson.to_animation(frames, "nothing").data


# --- the device ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpu", "CUDA", "", None, "cuda:0"])
def test_unknown_devices_are_refused(lesson, name):
    with pytest.raises(ValueError, match="DEVICE"):
        lesson.choose_device(name)


def test_cuda_without_a_gpu_is_refused(lesson, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="finds no CUDA GPU"):
        lesson.choose_device("cuda")
    assert lesson.choose_device("auto").type == "cpu"


def test_a_gpu_that_fails_on_first_use(lesson, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no kernel image is available\nmore")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", fail)
    with pytest.raises(ValueError, match="fails on first use .no kernel image is available."):
        lesson.choose_device("cuda")
    assert lesson.choose_device("auto").type == "cpu"


# --- parameters ----------------------------------------------------------------------------

BAD = [
    ("SEED", "abc"),
    ("SEED", -1),
    ("SEED", 1.5),
    ("SEED", True),
    ("SEED", 10**9),
    ("MAX_STEPS", 0),
    ("MAX_STEPS", -5),
    ("MAX_STEPS", 1e4),
    ("EVAL_EVERY", 0),
    ("STOP_WHEN_SOLVED", 1),
    ("BATCH_SIZE", 0),
    ("BATCH_SIZE", 10**6),
    ("GAMMA", 1.2),
    ("GAMMA", 1.0),
    ("GAMMA", -0.1),
    ("GAMMA", math.nan),
    ("EPS_START", 1.1),
    ("EPS_END", -0.1),
    ("EPS_END", 0.95),
    ("EPS_DECAY", 0),
    ("TAU", 0),
    ("TAU", 1.01),
    ("TARGET_EPSILON", -0.1),
    ("TARGET_EPSILON", 1.1),
    ("LR", 0),
    ("LR", "1e-4"),
    ("LR", math.inf),
    ("MEMORY_SIZE", 0),
    ("MIRROR", None),
    ("DOUBLE_DQN", "yes"),
    ("OBSERVATION_SCALE", [1, 1, 1]),
    ("OBSERVATION_SCALE", []),
    ("OBSERVATION_SCALE", [1, 1, 0, 1]),
    ("OBSERVATION_SCALE", [1, 1, "1", 1]),
    ("OBSERVATION_SCALE", 2.4),
    ("REWARD_SCALE", 0),
    ("INITIAL_VALUE", None),
    ("GREEDY_NET", "both"),
    ("COMPARE_SEEDS", -1),
    ("ABLATION_SEEDS", 101),
    ("UPDATE_TARGET_EVERY", 0),
    ("TRUNCATED_IS_TERMINATED", 0),
    ("USE_ORIGINAL_SETTINGS", "no"),
    ("TRACKING", "mlflow"),
    ("REGISTER_MODEL_AS", "my model"),
    ("OUTPUT_DIR", ""),
    ("DEVICE", "tpu"),
]


@pytest.mark.parametrize("name,value", BAD)
def test_bad_parameters_are_refused_by_name_and_value(lesson, name, value):
    with pytest.raises(ValueError) as caught:
        lesson.change_settings(lesson.settings, **{name: value})
    message = str(caught.value)
    assert message.startswith(f"{name} = {value!r}")
    assert "must be" in message


def test_every_parameter_has_a_bad_case(lesson):
    assert {name for name, _ in BAD} == set(lesson.RULES) - set(lesson.TASK)


def test_unknown_parameters_are_refused(lesson):
    with pytest.raises(ValueError, match="GAMA"):
        lesson.change_settings(lesson.settings, GAMA=0.9)


def test_the_seeds_of_the_comparison_must_be_valid_too(lesson):
    with pytest.raises(ValueError, match="SEED = 999999999"):
        lesson.change_settings(lesson.settings, SEED=999_999_999, COMPARE_SEEDS=4)


def test_settings_are_copies(lesson):
    settings = tiny(lesson)
    changed = lesson.change_settings(settings, GAMMA=0.5)
    changed.OBSERVATION_SCALE[0] = 9
    assert settings.GAMMA == lesson.settings.GAMMA
    assert settings.OBSERVATION_SCALE[0] == lesson.settings.OBSERVATION_SCALE[0]


def test_original_settings_are_the_published_ones(lesson):
    s = lesson.change_settings(lesson.settings, **lesson.ORIGINAL_SETTINGS)
    assert (s.BATCH_SIZE, s.GAMMA, s.EPS_START, s.EPS_END) == (128, 0.99, 0.9, 0.05)
    assert (s.EPS_DECAY, s.TAU, s.LR, s.MEMORY_SIZE) == (1000, 0.005, 1e-4, 10_000)
    assert (s.DOUBLE_DQN, s.TARGET_EPSILON, s.REWARD_SCALE, s.INITIAL_VALUE) == (False, 0, 1, 0)
    run = tiny_run(lesson, **{**lesson.ORIGINAL_SETTINGS, "MEMORY_SIZE": 1000})
    assert run.steps == 400 and run.gradient_steps > 200


def test_an_output_folder_that_cannot_be_written_is_refused(lesson, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match="OUTPUT_DIR = .*cannot be written"):
        lesson.prepare_folder(str(tmp_path / "file" / "outputs"))


def test_files_are_written_in_one_piece(lesson, tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    lesson.write_file(path, "old")
    monkeypatch.setattr(lesson.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    assert lesson.write_file(path, "new") is False
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_pieces_that_a_killed_run_left_are_removed(lesson, tmp_path):
    (tmp_path / "model.pt.part").write_text("half")
    (tmp_path / "model.pt").write_text("whole")
    lesson.prepare_folder(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_environments_that_a_dqn_cannot_play_are_refused(lesson):
    for name in ("Pendulum-v1", "Nothing-v0", "os:path-v0", "Taxi-v3"):
        with pytest.raises(ValueError, match="ENV_ID"):
            lesson.change_settings(lesson.settings, ENV_ID=name)


# --- the environment and its players -------------------------------------------------------


def test_evaluation_equals_playing_one_after_the_other(lesson):
    policy = lambda observations: [int(o[2] + o[3] > 0) for o in observations]  # noqa: E731
    starts = range(5, 12)
    one_by_one = []
    for seed in starts:
        env = lesson.make_env("CartPole-v1")
        observation, total, over = lesson.reset_env(env, seed), 0.0, False
        while not over:
            observation, reward, *ends = lesson.step_env(env, policy([observation])[0])
            total, over = total + reward, any(ends)
        one_by_one.append(total)
    assert lesson.evaluate(policy, starts, "CartPole-v1").tolist() == one_by_one


def test_starts_do_not_overlap(lesson):
    assert not set(lesson.VALIDATION_STARTS) & set(lesson.HELD_OUT_STARTS)
    assert min(lesson.VALIDATION_STARTS) >= 10**9  # SEED stays below
    assert len(lesson.HELD_OUT_STARTS) == 100


# --- memory and network --------------------------------------------------------------------


def test_memory_forgets_the_oldest_and_keeps_rows_together(lesson):
    memory = lesson.ReplayMemory(8, 4, seed=1)
    for i in range(21):
        memory.push(np.full(4, i), i % 2, np.full(4, i + 1), float(i), i % 3 == 0)
    assert len(memory) == 8
    batch = memory.sample(8)
    labels = batch.reward.long()
    assert set(labels.tolist()) <= set(range(13, 21))
    assert torch.equal(batch.state, labels[:, None].float().expand(-1, 4))
    assert torch.equal(batch.next_state, batch.state + 1)
    assert torch.equal(batch.action[:, 0], labels % 2)
    assert torch.equal(batch.terminated, labels % 3 == 0)


def test_memory_draws_evenly_and_refuses_too_large_batches(lesson):
    memory = lesson.ReplayMemory(10, 4, seed=3)
    with pytest.raises(ValueError, match="cannot sample 1 of 0"):
        memory.sample(1)
    for i in range(10):
        memory.push(np.full(4, i), 0, np.zeros(4), float(i), False)
    counts = torch.bincount(torch.cat([memory.sample(10).reward.long() for _ in range(500)]))
    assert counts.min() > 400 and counts.max() < 600
    with pytest.raises(ValueError):
        memory.push(np.zeros(4), 0, np.zeros(4), 1.0)


def test_network_shapes_scale_and_start(lesson):
    net = lesson.DQN(6, 3, [2.0] * 6, initial_value=5.0)
    plain = copy.deepcopy(net)
    plain.observation_scale.fill_(1.0)
    x = torch.randn(7, 6)
    assert net(x).shape == (7, 3)
    assert torch.allclose(net(x), plain(x / 2))
    assert net(x).mean().item() == pytest.approx(5, abs=1)
    assert [layer.out_features for layer in (net.layer1, net.layer2, net.layer3)] == [128, 128, 3]


# --- acting --------------------------------------------------------------------------------


def test_epsilon_follows_the_formula(lesson):
    s = tiny(lesson, EPS_START=0.9, EPS_END=0.05, EPS_DECAY=1000)
    assert lesson.epsilon_at(0, s) == pytest.approx(0.9)
    assert lesson.epsilon_at(1000, s) == pytest.approx(0.05 + 0.85 / math.e)
    assert lesson.epsilon_at(10**6, s) == pytest.approx(0.05)


@pytest.mark.parametrize("epsilon,low,high", [(0.0, 0, 0), (0.5, 0.2, 0.3), (1.0, 0.45, 0.55)])
def test_actions_are_random_as_often_as_epsilon_says(lesson, epsilon, low, high):
    agent = agent_of(lesson, EPS_START=epsilon, EPS_END=epsilon)
    observation = np.array([0.1, 0.2, 0.1, 0.5], np.float32)
    greedy = int(agent.policy_net(torch.tensor(observation)).argmax())
    other = np.mean([lesson.select_action(agent, observation) != greedy for _ in range(3000)])
    assert low <= other <= high
    assert agent.steps_done == 3000


# --- learning ------------------------------------------------------------------------------


def test_targets_of_ordinary_terminal_and_truncated_steps(lesson):
    batch = batch_of(lesson, [False, True, False])
    nets = stand_in(0.2, 0.5), stand_in(4.0, 3.0)
    plain = lesson.td_targets(batch, *nets, 0.9, double_dqn=False)
    double = lesson.td_targets(batch, *nets, 0.9, double_dqn=True)
    careful = lesson.td_targets(batch, *nets, 0.9, double_dqn=True, target_epsilon=0.4)
    assert plain.tolist() == pytest.approx([1 + 0.9 * 4, 1, 1 + 0.9 * 4])
    assert double.tolist() == pytest.approx([1 + 0.9 * 3, 1, 1 + 0.9 * 3])
    mixed = 1 + 0.9 * (0.6 * 3 + 0.4 * 3.5)
    assert careful.tolist() == pytest.approx([mixed, 1, mixed])


def test_targets_carry_no_gradient(lesson):
    agent = agent_of(lesson)
    batch = batch_of(lesson, [False] * 3)
    assert not lesson.td_targets(batch, agent.policy_net, agent.target_net, 0.99).requires_grad


def test_one_step_moves_the_policy_by_the_gradient_of_the_huber_loss(lesson):
    agent = agent_of(lesson, BATCH_SIZE=4)
    for i in range(4):
        agent.memory.push(np.full(4, 0.1 * i), i % 2, np.zeros(4), 5.0 * i, True)
    before = copy.deepcopy(agent.policy_net)
    generator_state = agent.memory.generator.get_state()
    loss = lesson.optimize_model(agent)
    agent.memory.generator.set_state(generator_state)
    batch = agent.memory.sample(4)
    with torch.no_grad():
        error = before(batch.state).gather(1, batch.action)[:, 0] - batch.reward
    by_hand = torch.where(error.abs() <= 1, 0.5 * error**2, error.abs() - 0.5).mean()
    assert float(loss) == pytest.approx(float(by_hand), rel=1e-5)
    assert all(
        torch.equal(a, b)
        for a, b in zip(agent.target_net.parameters(), before.parameters(), strict=True)
    ), "only the policy network is optimised"
    assert not torch.equal(agent.policy_net.layer1.weight, before.layer1.weight)


def test_gradients_are_clipped(lesson):
    agent = agent_of(lesson, BATCH_SIZE=4)
    agent.policy_net.observation_scale.fill_(1e-6)
    for _ in range(4):
        agent.memory.push(np.ones(4), 0, np.zeros(4), 0.0, True)
    lesson.optimize_model(agent)
    gradients = torch.cat([p.grad.flatten() for p in agent.policy_net.parameters()])
    assert gradients.abs().max() == 100


def test_target_network_moves_by_tau(lesson):
    agent = agent_of(lesson, TAU=0.25)
    with torch.no_grad():
        for parameter in agent.policy_net.parameters():
            parameter += 4.0
    before = [p.clone() for p in agent.target_net.parameters()]
    lesson.update_target(agent)
    for old, new in zip(before, agent.target_net.parameters(), strict=True):
        assert torch.allclose(new, old + 1.0, atol=1e-5)
        assert not new.requires_grad


# --- training ------------------------------------------------------------------------------


def test_memory_keeps_termination_apart_from_truncation(lesson):
    s = tiny(lesson, MAX_STEPS=1200, BATCH_SIZE=1000, MIRROR=False)
    run = lesson.make_run(s, torch.device("cpu"))
    rule = lambda o: int(o[2] + o[3] > 0)  # noqa: E731
    namespace = lesson.act_and_remember.__globals__
    choose = namespace["select_action"]
    namespace["select_action"] = lambda agent, observation: rule(observation)
    try:
        while run.steps < 1100:
            lesson.act_and_remember(run)
    finally:
        namespace["select_action"] = choose
    durations = [duration for _, _, duration in run.durations]
    assert 500 in durations, "the rule reaches the time limit"
    terminated = int(run.agent.memory.fields.terminated[: len(run.agent.memory)].sum())
    assert terminated == sum(duration < 500 for duration in durations[-terminated:] if terminated)
    ends = [steps for _, steps, duration in run.durations if duration == 500]
    rows = [(end - 1) % run.agent.memory.capacity for end in ends if end > run.steps - 1000]
    assert rows and not run.agent.memory.fields.terminated[rows].any()


def test_a_mirrored_step_is_what_the_simulator_does_to_a_mirrored_cart(lesson):
    env = lesson.make_env("CartPole-v1").unwrapped
    lesson.reset_env(env, seed=3)
    start = np.array([0.5, -1.0, 0.1, 0.7])
    outcomes = []
    for sign, action in ((1, 1), (-1, 0)):
        env.state = sign * start
        state, reward, terminated, _ = lesson.step_env(env, action)
        before = (sign * start).astype(np.float32)
        outcomes.append(lesson.Transition(before, action, state, reward, terminated))
    mirrored = lesson.mirror(outcomes[0], n_actions=2)
    for ours, simulated in zip(mirrored, outcomes[1], strict=True):
        assert np.allclose(ours, simulated)


def test_mirroring_doubles_what_is_remembered(lesson):
    lengths = {}
    for mirrored in (True, False):
        run = lesson.make_run(tiny(lesson, MIRROR=mirrored), torch.device("cpu"))
        for _ in range(10):
            lesson.act_and_remember(run)
        lengths[mirrored] = len(run.agent.memory)
    assert lengths == {True: 20, False: 10}


def test_same_seed_same_curve_other_seed_other_curve(lesson):
    first, again, other = tiny_run(lesson), tiny_run(lesson), tiny_run(lesson, SEED=78)
    assert first.durations == again.durations and first.evaluations == again.evaluations
    for name, tensor in first.agent.policy_net.state_dict().items():
        assert torch.equal(tensor, again.agent.policy_net.state_dict()[name])
    assert first.durations != other.durations


def test_a_run_does_not_depend_on_other_random_numbers_or_on_being_watched(lesson):
    plain = tiny_run(lesson)
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    run = lesson.make_run(tiny(lesson), torch.device("cpu"))
    seen = []

    def watch(run):
        seen.append(run.steps)
        random.random(), torch.rand(1), np.random.rand()

    lesson.train(run, watch)
    assert run.durations == plain.durations
    assert seen == list(range(401))  # before every step and once at the end


def test_training_goes_on_where_it_stopped(lesson):
    whole = tiny_run(lesson)
    run = lesson.make_run(tiny(lesson), torch.device("cpu"))

    def stop(run):
        if run.steps == 250:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lesson.train(run, stop)
    lesson.train(run)
    assert run.durations == whole.durations


def test_the_longer_budget_begins_like_the_shorter(lesson):
    short, longer = tiny_run(lesson), tiny_run(lesson, MAX_STEPS=600)
    assert longer.durations[: len(short.durations)] == short.durations


def test_the_best_weights_are_kept_and_the_first_success_is_noted(lesson):
    run = lesson.make_run(tiny(lesson), torch.device("cpu"))
    namespace = lesson.validate.__globals__
    evaluate = namespace["evaluate"]
    scores = iter([100.0, 480.0, 300.0, 480.0])
    kept = []
    try:
        for step in range(4):
            run.steps, run.train_seconds = 10 * (step + 1), 0.5 * (step + 1)
            with torch.no_grad():
                run.agent.target_net.layer3.bias.fill_(step)
            namespace["evaluate"] = lambda *_: np.full(20, next(scores))
            lesson.validate(run)
            kept.append(float(run.best_weights["layer3.bias"][0]))
    finally:
        namespace["evaluate"] = evaluate
    assert kept == [0, 1, 1, 3], "the best; among equals the latest"
    assert (run.solved_at_step, run.solved_at_seconds) == (20, 1.0)
    assert lesson.steadiness(run.evaluations, 475) == pytest.approx(2 / 3)
    assert lesson.steadiness([(1, 10.0, 1.0)], 475) == 0


def test_stop_when_solved(lesson):
    run = lesson.make_run(tiny(lesson, STOP_WHEN_SOLVED=True), torch.device("cpu"))
    assert not run.finished
    run.solved_at_step = 5
    assert run.finished


def test_a_failing_plot_does_not_stop_training(lesson, monkeypatch):
    plot = lesson.LivePlot()
    monkeypatch.setitem(lesson.LivePlot.draw.__globals__, "plot_durations", lambda *a, **k: 1 / 0)
    run = lesson.train(lesson.make_run(tiny(lesson), torch.device("cpu")), plot)
    assert run.finished and isinstance(plot.error, ZeroDivisionError)


def test_parallel_runs_equal_the_same_runs_alone(lesson):
    many = lesson.train_many([tiny(lesson), tiny(lesson, SEED=78)], torch.device("cpu"), jobs=2)
    assert many[0].durations == tiny_run(lesson).durations
    assert many[1].durations == tiny_run(lesson, SEED=78).durations


def test_saved_agents_load_as_they_were(lesson, tmp_path):
    run = tiny_run(lesson)
    path = tmp_path / "model.pt"
    lesson.save_agent(path, run.best_weights, run.settings)
    net, settings = lesson.load_agent(path, torch.device("cpu"))
    assert settings == vars(run.settings)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, run.best_weights[name])
