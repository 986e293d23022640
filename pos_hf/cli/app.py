"""`pos-hf app MODEL`: a page in the browser to try a model on."""

from importlib.util import find_spec

from pos_hf.cli.parsing import (
    CommandParser,
    add_inference_arguments,
    add_model_arguments,
    importing,
    inference_from,
)
from pos_hf.errors import InputError


def main(argv: list[str]) -> int:
    """Run the command until it is interrupted.

    Args:
        argv: The command's own arguments.

    Returns:
        0.

    Raises:
        InputError: gradio is not installed, there is no such model, or the port is taken.
    """
    args = parser().parse_args(argv)
    if find_spec("gradio") is None:
        raise InputError("a page needs gradio: `pip install 'pos_hf[app]'`")

    with importing():
        from pos_hf.hub.app import TriedModel, make_page

    tried = TriedModel(args.model, args.trust_remote_code, inference_from(args), args.subfolder)
    try:
        make_page(tried).launch(server_name="127.0.0.1", server_port=args.port)
    except OSError as error:
        raise InputError(f"no page can be served at port {args.port}: give another --port") from error
    return 0


def parser() -> CommandParser:
    """The command's arguments."""
    parser = CommandParser(
        prog="pos-hf app",
        description="Serve a page on this machine: drop an image, see its mask with a legend, and how sure "
        "the model is. Ctrl+C ends it.",
    )
    add_model_arguments(parser)
    parser.add_argument("--port", type=int, default=7860, help="of http://127.0.0.1 (default: 7860)")
    add_inference_arguments(parser)
    return parser
