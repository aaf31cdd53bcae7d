"""Test groups and dependencies of an application."""

from __future__ import annotations

import pickle
from itertools import permutations
from typing import Any

import pytest

from trio_supervisor.application import Application, Command, Group, Listen, Service
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.order import start_waves
from trio_supervisor.policy.strategy import GroupNode


async def target(worker: object) -> None:
    """A target."""


def command(name: str, **changes: Any) -> Command:
    return Command(name, ["true"], **changes)


def after(name: str, *others: str) -> Command:
    """Return a command that depends on *others* being ready."""
    return command(name, depends_on=dict.fromkeys(others, "ready"))


def refused(*services: Command | Group, **changes: Any) -> SpecError:
    with pytest.raises(SpecError) as caught:
        Application(services, **changes)
    return caught.value


def nested() -> Application:
    """a, then a group of b, c (in a group of its own) and d, then e."""
    return Application(
        [
            command("a"),
            Group(
                [command("b"), Group([command("c")], name="core"), command("d")],
                strategy="one_for_all",
                intensity=3,
                period=5,
            ),
            command("e"),
        ],
        strategy="rest_for_one",
        intensity=None,
        name="shop",
    )


def test_services_are_found_at_any_depth() -> None:
    """In the order of declaration, and by name."""
    made = nested()
    assert [service.name for service in made.services] == [*"abcde"]
    assert made.service("c") is made.services[2]
    assert isinstance(made.root.children[1], Group)
    paths = [made.path(name) for name in "acde"]
    assert paths == [
        "services[0]",
        "services[1].children[1].children[0]",
        "services[1].children[2]",
        "services[2]",
    ]


def test_tree_describes_groups_as_plain_data() -> None:
    """A group without a name is named by its path."""
    core = GroupNode(name="core", children=("c",))
    assert nested().tree() == GroupNode(
        name="shop",
        strategy="rest_for_one",
        intensity=None,
        children=(
            "a",
            GroupNode(
                name="services[1]",
                children=("b", core, "d"),
                strategy="one_for_all",
                intensity=3,
                period=5.0,
            ),
            "e",
        ),
    )


def test_rest_for_one_child_needs_all_earlier_ones() -> None:
    """But not services of the same child; its own depends_on takes precedence."""
    made = Application(
        [
            command("a"),
            Group([command("b"), after("c", "b")]),
            command("d", depends_on={"a": "started"}),
        ],
        strategy="rest_for_one",
    )
    assert made.needs() == {
        "a": {},
        "b": {"a": "ready"},
        "c": {"a": "ready", "b": "ready"},
        "d": {"a": "started", "b": "ready", "c": "ready"},
    }
    names = [service.name for service in made.services]
    assert start_waves(names, made.needs()) == [{"a"}, {"b"}, {"c"}, {"d"}]


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all"])
def test_other_strategies_add_no_needs(strategy: str) -> None:
    """All services start at the same time."""
    made = Application([command("a"), after("b", "a"), command("c")], strategy=strategy)  # type: ignore[arg-type]
    assert made.needs() == {"a": {}, "b": {"a": "ready"}, "c": {}}


def test_one_for_one_child_may_need_a_later_one() -> None:
    assert Application([after("a", "b"), command("b")]).needs()["a"] == {"b": "ready"}


@pytest.mark.parametrize(
    ("services", "where", "words"),
    [
        pytest.param(
            [command("a"), Group([command("b"), command("a")])],
            "services[1].children[1].name",
            "services[0] has the name 'a' already",
            id="two services with one name",
        ),
        pytest.param(
            [Group([], name="a"), Group([command("a")])],
            "services[1].children[0].name",
            "services[0] has the name 'a' already",
            id="a service with the name of a group",
        ),
        pytest.param(
            [command("a"), Group([after("b", "c")])],
            "services[1].children[0].depends_on['c']",
            "unknown service; known: a, b",
            id="an unknown name",
        ),
        pytest.param(
            [Group([command("a")], name="g"), after("b", "g")],
            "services[1].depends_on['g']",
            "is a group",
            id="the name of a group",
        ),
        pytest.param(
            [command("a"), after("b", "b")],
            "services[1].depends_on['b']",
            "cannot depend on itself",
            id="the service itself",
        ),
        pytest.param(
            [command("a"), command("b", depends_on={"a": "exited_ok"})],
            "services[1].depends_on['a']",
            "services[0] has restart='always'",
            id="exited_ok of a service that always restarts",
        ),
        pytest.param(
            [Group([after("a", "b"), command("b")], strategy="rest_for_one")],
            "services[0].children[0].depends_on['b']",
            "services[0].children[1] comes later in a group with strategy=",
            id="a later sibling",
        ),
        pytest.param(
            [
                Group(
                    [Group([after("a", "b")]), Group([command("b")])],
                    strategy="rest_for_one",
                )
            ],
            "services[0].children[0].children[0].depends_on['b']",
            "services[0].children[1].children[0] comes later",
            id="a later cousin",
        ),
    ],
)
def test_unsatisfiable_dependency_is_rejected(
    services: list[Command | Group], where: str, words: str
) -> None:
    """The message has the path and the reason."""
    error = refused(*services)
    assert error.field == where
    assert words in error.problem


@pytest.mark.parametrize(
    ("services", "cycle"),
    [
        ([after("a", "b"), after("b", "c"), after("c", "b")], "bc"),
        ([after("a", "b", "d"), command("d"), after("b", "c"), after("c", "a")], "abc"),
    ],
)
def test_cycle_is_reported_at_one_of_its_services(
    services: list[Command], cycle: str
) -> None:
    """Each service depends on the next; the path is that of the first dependency."""
    error = refused(*services)
    told = error.problem.removeprefix("dependency cycle: ").split(" -> ")
    assert "".join(told[:-1]) in {
        cycle[place:] + cycle[:place] for place in range(len(cycle))
    }
    assert told[-1] == told[0]
    place = [service.name for service in services].index(told[0])
    assert error.field == f"services[{place}].depends_on['{told[1]}']"


@pytest.mark.parametrize("names", [*permutations("abx")], ids="".join)
def test_cycle_through_rest_for_one_is_reported_at_a_declared_need(
    names: tuple[str, str, str],
) -> None:
    """Only the strategy makes the second child depend on the first."""
    first, second, outer = names
    group = Group([after(first, outer), command(second)], strategy="rest_for_one")
    error = refused(group, after(outer, second))
    assert {
        f"services[0].children[0].depends_on['{outer}']": (
            f"{first} -> {outer} -> {second} -> {first}"
        ),
        f"services[1].depends_on['{second}']": (
            f"{outer} -> {second} -> {first} -> {outer}"
        ),
    }[error.field] in error.problem


def test_cycle_is_never_reported_at_an_implied_need() -> None:
    """The cycle is rotated until it begins with a declared dependency."""
    group = Group([after("c", "d"), after("a", "e")], strategy="rest_for_one")
    error = refused(command("e"), after("d", "a"), group)
    assert error.field in {
        "services[1].depends_on['a']",
        "services[2].children[0].depends_on['d']",
    }


def test_order_of_a_group_does_not_affect_other_groups() -> None:
    """Even if both groups have strategy="rest_for_one"."""
    first = Group([after("a", "b")], strategy="rest_for_one")
    second = Group([command("c"), command("b")], strategy="rest_for_one")
    assert Application([first, second]).needs()["a"] == {"b": "ready"}


def test_exited_ok_of_a_job_is_accepted() -> None:
    """With restart="never" or "on-failure"."""
    for restart in ("never", "on-failure"):
        migrate = command("migrate", restart=restart)
        web = command("web", depends_on={"migrate": "exited_ok"})
        needs = Application([web, migrate]).needs()
        assert needs["web"] == {"migrate": "exited_ok"}


def test_service_may_need_a_sibling_of_its_group() -> None:
    """Only groups that contain both services restrict their order."""
    inner = Group([after("a", "b"), command("b")])
    Application([Group([inner, command("c")], strategy="rest_for_one")])


def test_sockets_with_one_address_need_equal_options() -> None:
    """Services with equal options share it; port 0 is never shared."""
    url = "tcp://127.0.0.1:80"
    once = command("a", sockets={"http": Listen(url), "any": Listen("tcp://:0")})
    same = command("b", sockets={"web": Listen(url)})
    other = command("c", sockets={"web": Listen(url, backlog=5)})
    any_port = command("d", sockets={"any": Listen("tcp://:0", backlog=5)})
    Application([once, same, any_port])
    error = refused(once, Group([other]))
    assert error.field == "services[1].children[0].sockets['web']"
    assert "services[0].sockets['http'] listens on tcp://127.0.0.1:80" in error.problem


def test_service_may_not_listen_on_an_address_twice() -> None:
    """The socket would have to be opened twice."""
    sockets = {"a": Listen("unix://x"), "b": Listen("unix://x", mode=0o666)}
    error = refused(command("web", sockets=sockets))
    assert error.field == "services[0].sockets['b']"


def test_depth_of_groups_is_limited() -> None:
    group = Group([])
    for _ in range(31):
        group = Group([group])
    assert group.depth == 32
    for make in (Group, Application):
        with pytest.raises(SpecError, match=r"\[0\]: .* 32 levels"):
            make([group])


def test_application_can_be_pickled() -> None:
    """It is pickled for processes that cannot import it."""
    sockets = {"http": Listen("tcp://:0")}
    web = Service("web", target, sockets=sockets, depends_on={"a": "ready"})
    made = Application([command("a"), Group([web], strategy="one_for_all")])
    copy = pickle.loads(pickle.dumps(made))
    assert (copy.tree(), copy.needs()) == (made.tree(), made.needs())
    assert copy.service("web").sockets == sockets
    assert copy.service("web").target is target


def test_repr_of_a_group_is_short() -> None:
    group = Group([command("a")], strategy="one_for_all", name="g")
    assert repr(group) == (
        "Group([Command('a', ['true'], count=1)], strategy='one_for_all', name='g')"
    )
    assert repr(Group([])) == "Group([], strategy='one_for_one')"
    assert "Group([" in repr(Application([group]))
