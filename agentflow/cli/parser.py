"""What can be written on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from agentflow import __version__
from agentflow.cli import descriptions
from agentflow.cli.codes import MEANINGS
from agentflow.settings import ROUTINGS

_EPILOG = "exit codes:\n" + "\n".join(f"  {code:<4} {text}" for code, text in MEANINGS.items())


class _Secret(argparse.Action):
    """Refuses a key on the command line, and says why."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        parser.error(
            "a key on the command line can be read by everybody on this machine (ps) and stays "
            "in the shell's history: set OPENAI_API_KEY or AGENTFLOW_API_KEY instead"
        )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the words of the command line.

    Raises:
        SystemExit: They are not understood, or ask for help or the version.
    """
    parser = build()
    options, rest = parser.parse_known_args(argv)
    if hasattr(options, "args") and not any(word.startswith("-") for word in rest):
        options.args += rest  # arguments that stand after an option
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


def build() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _parser(
        argparse.ArgumentParser,
        prog="agentflow",
        description="Plans become dependency graphs and run in parallel.",
    )
    parser.add_argument("--version", action="version", version=f"agentflow {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_run(commands)
    _add_runs(commands)
    _add_explain(commands)
    _add_resume(commands)
    _add_answers(commands)
    _add_replay(commands)
    _add_plan(commands)
    _add_tools(commands)
    _add_cache(commands)
    _add_estimates(commands)
    _add_doctor(commands)
    return parser


def _parser(make: Any, *args: Any, **kwargs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = make(
        *args,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **kwargs,
    )
    return parser


def _add_run(commands: Any) -> None:
    parser = _parser(
        commands.add_parser,
        "run",
        help="run a question, a plan or a workflow",
        description=descriptions.RUN,
    )
    _add_target(parser)
    _add_tool_options(parser)
    _add_endpoint_options(parser)
    group = parser.add_argument_group("several endpoints")
    group.add_argument(
        "--routing",
        choices=ROUTINGS,
        help="how a replica is chosen; default earliest: where the reply is complete first",
    )
    group = parser.add_argument_group("the task")
    group.add_argument(
        "--strategy", choices=("plan", "react"), help="default plan, and react in a session"
    )
    group.add_argument("--session", metavar="FILE", help="go on with the conversation kept there")
    group.add_argument("--max-tokens", type=int, metavar="N", help="tokens of one reply at most")
    _add_limit_options(parser, "the limits")
    _add_cache_options(parser)
    group = parser.add_argument_group("going on later")
    kept = group.add_mutually_exclusive_group()
    _add_journal_option(kept)
    kept.add_argument("--no-journal", action="store_true", help="keep nothing of the run")
    group.add_argument("--yes", action="store_true", help="approve every call that asks")
    _add_output_options(parser)
    _add_debug_options(parser)


def _add_runs(commands: Any) -> None:
    parser = _parser(
        commands.add_parser,
        "runs",
        help="list the runs that are kept",
        description=descriptions.RUNS,
    )
    parser.add_argument("words", metavar="ACTION", nargs="*")
    group = parser.add_argument_group("which")
    group.add_argument("--state", metavar="STATE", action="append", help="only runs in this state")
    group.add_argument("--limit", type=int, metavar="N", help="the last N runs; default 20")
    group = parser.add_argument_group("what goes, with prune")
    group.add_argument("--keep", metavar="TIME", help="what ended longer ago, such as 7d")
    group.add_argument("--max-size", metavar="SIZE", help="the oldest, until it is 100MB in all")
    group = parser.add_argument_group("the output")
    group.add_argument("--json", action="store_true", help="JSON on standard output")
    _add_journal_option(group)
    _add_debug_options(parser)


def _add_explain(commands: Any) -> None:
    text = "say why calls began when they did, and where"
    parser = _parser(commands.add_parser, "explain", help=text, description=descriptions.EXPLAIN)
    parser.add_argument("run", metavar="RUN", help="its id, how it begins, or last")
    parser.add_argument(
        "node", metavar="CALL", nargs="?", help="one call: $3, $3[0], $1/$2, a tool"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    _add_journal_option(parser)
    _add_debug_options(parser)


def _add_resume(commands: Any) -> None:
    parser = _parser(
        commands.add_parser, "resume", help="go on with a run", description=descriptions.RESUME
    )
    _add_run_name(parser)
    group = parser.add_argument_group("what asks")
    group.add_argument("--yes", action="store_true", help="approve every call that asks")
    group.add_argument(
        "--in-doubt",
        choices=("ask", "retry", "fail"),
        default="ask",
        help="calls that may have been made when it broke off: ask, make them again, or fail",
    )
    group = parser.add_argument_group("other limits, for all of the run")
    group.add_argument("--budget", metavar="USD", help="what it may cost, such as 0.05")
    group.add_argument("--budget-tokens", type=int, metavar="N", help="tokens it may use in all")
    group.add_argument("--deadline", metavar="TIME", help="how long it may take, pauses left out")
    group.add_argument("--prices", metavar="FILE", help="TOML or JSON: USD per million tokens")
    _add_tool_options(parser)
    _add_endpoint_options(parser)
    _add_output_options(parser)
    _add_journal_option(parser)
    _add_debug_options(parser)


def _add_answers(commands: Any) -> None:
    for name, text, what in (
        ("approve", "let a call be made that asks", descriptions.APPROVE),
        ("deny", "refuse a call that asks", descriptions.DENY),
    ):
        parser = _parser(commands.add_parser, name, help=text, description=what)
        _add_run_name(parser)
        parser.add_argument("call", metavar="CALL", nargs="?", help="its line ($4), or its tool")
        if name == "approve":
            parser.add_argument("--value", metavar="JSON", help="it was made, and gave this")
        else:
            parser.add_argument("--why", metavar="TEXT", default="", help="what a model is told")
        parser.add_argument("--all", action="store_true", help="all calls that ask")
        parser.add_argument("--json", action="store_true", help="one JSON object")
        _add_journal_option(parser)
        _add_debug_options(parser)


def _add_replay(commands: Any) -> None:
    parser = _parser(
        commands.add_parser,
        "replay",
        help="decide again, calling nothing",
        description=descriptions.REPLAY,
    )
    parser.add_argument("run", metavar="RUN", help="a run, how its id begins, or an exported file")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    _add_tool_options(parser)
    _add_journal_option(parser)
    _add_debug_options(parser)


def _add_plan(commands: Any) -> None:
    parser = _parser(
        commands.add_parser,
        "plan",
        help="show a plan without running it",
        description=descriptions.PLAN,
    )
    _add_target(parser)
    parser.add_argument(
        "--format", choices=("text", "mermaid", "dot", "json"), default="text", help="default text"
    )
    parser.add_argument("--explain", action="store_true", help="show what each pass changes")
    parser.add_argument(
        "--tools-json",
        metavar="FILE",
        help='[{"name", "params", "required"}, ...] in place of tools',
    )
    _add_tool_options(parser)
    _add_endpoint_options(parser)
    _add_limit_options(parser, "what limits come to, before anything is spent")
    _add_debug_options(parser)


def _add_tools(commands: Any) -> None:
    text = "List the tools of a run, with their schemas and effects."
    parser = _parser(commands.add_parser, "tools", help="list the tools", description=text)
    parser.add_argument("--json", action="store_true", help="one JSON array on standard output")
    _add_tool_options(parser)
    _add_debug_options(parser)


def _add_cache(commands: Any) -> None:
    parser = _parser(
        commands.add_parser,
        "cache",
        help="look after what is kept on disk",
        description=descriptions.CACHE,
    )
    parser.add_argument("action", metavar="ACTION", choices=("stats", "clear", "export"))
    parser.add_argument("--dir", metavar="DIR", help="where it is; otherwise AGENTFLOW_CACHE")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    _add_debug_options(parser)


def _add_estimates(commands: Any) -> None:
    parser = _parser(
        commands.add_parser,
        "estimates",
        help="show what runs have taught of models",
        description=descriptions.ESTIMATES,
    )
    parser.add_argument("--file", metavar="FILE", help="where it is; otherwise AGENTFLOW_ESTIMATES")
    parser.add_argument("--prices", metavar="FILE", help="TOML or JSON: USD per million tokens")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    _add_debug_options(parser)


def _add_doctor(commands: Any) -> None:
    text = "Look at the endpoint: is it reachable, what does it offer, how fast is it."
    parser = _parser(commands.add_parser, "doctor", help="look at the endpoint", description=text)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    _add_endpoint_options(parser)
    _add_debug_options(parser)


def _add_run_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="its id, how it begins, or last")


def _add_journal_option(parser: Any) -> None:
    parser.add_argument("--journal", metavar="FILE", help="where runs are kept")


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the output")
    form = group.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object on standard output")
    form.add_argument("--events", action="store_true", help="every event as a line of JSON")
    group.add_argument("--quiet", "-q", action="store_true", help="no progress, no summary")


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET")
    parser.add_argument("args", metavar="ARG", nargs="*", help="an argument of the workflow")


def _add_tool_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the tools")
    group.add_argument(
        "--tools",
        metavar="MODULE",
        action="append",
        default=[],
        help="tools of my_tools.py or package.module (may be repeated)",
    )
    group.add_argument("--root", metavar="DIR", help="the folder that the file tools look into")
    group.add_argument("--write", action="store_true", help="add write_file, for files there")
    group.add_argument(
        "--allow-private", action="store_true", help="http_get may reach private addresses"
    )
    group.add_argument("--sql", metavar="FILE", help="add the sql tool, which reads this database")
    group.add_argument("--python", action="store_true", help="add the python tool")


def _add_limit_options(parser: argparse.ArgumentParser, title: str) -> None:
    group = parser.add_argument_group(title)
    group.add_argument("--budget", metavar="USD", help="what the run may cost, such as 0.05")
    group.add_argument("--budget-tokens", type=int, metavar="N", help="tokens it may use in all")
    group.add_argument("--deadline", metavar="TIME", help="how long it may take: 30s, 5m, 1h")
    group.add_argument("--prices", metavar="FILE", help="TOML or JSON: USD per million tokens")
    known = group.add_mutually_exclusive_group()
    known.add_argument("--estimates", metavar="FILE", help="where it is kept what runs teach")
    known.add_argument(
        "--no-estimates", action="store_true", help="know nothing, and learn nothing"
    )


def _add_cache_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is kept, and what starts early")
    kept = group.add_mutually_exclusive_group()
    kept.add_argument("--cache", metavar="DIR", help="keep results of tools there, for later runs")
    kept.add_argument("--no-cache", action="store_true", help="keep no results, not even in memory")
    group.add_argument(
        "--speculate",
        action=argparse.BooleanOptionalAction,
        help="start calls early that are likely to come",
    )
    group.add_argument(
        "--partial",
        action=argparse.BooleanOptionalAction,
        help="begin calls while they are written (on by default)",
    )


def _add_endpoint_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the model")
    group.add_argument(
        "--base-url",
        metavar="URL",
        action="append",
        help="OpenAI-compatible endpoint (repeated: replicas that serve the same model)",
    )
    group.add_argument("--model", metavar="NAME", help="the model to ask")
    group.add_argument("--api-key", action=_Secret, help=argparse.SUPPRESS)


def _add_debug_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("when things go wrong")
    group.add_argument("--debug", action="store_true", help="tracebacks, and all that is logged")
    group.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="warning",
        help="what is logged; default warning",
    )
