"""The table itself: say a concept, watch the team, stop it, see what it made."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from orbweave.errors import OrbweaveError
from orbweave.records import DOMAINS, SCALES
from ui.studio import order
from ui.studio.desk import Desk
from ui.studio.gate import OWNER_HEADER
from ui.studio.order import Wish

__all__ = ["PATH", "TITLE", "build"]

TITLE = "Design"
PATH = ""
SIZES = ("256", "384", "512", "384x256", "256x384")
ANY_MODEL = "each role's own"


def build(desk: Desk) -> None:
    """Lay out the page."""
    with gr.Row(elem_id="ask", equal_height=True):
        concept = gr.Textbox(
            label="Concept",
            placeholder="What shall the team design?",
            lines=2,
            max_lines=6,
            elem_id="concept",
            scale=5,
        )
        begin = gr.Button("Design", variant="primary", elem_id="begin", scale=1, min_width=120)
    fields = {"concept": concept} | _settings()
    gr.HTML(
        '<div class="ow-table"></div>',
        elem_id="table",
        js_on_load="window.orbweave.table(element)",
        apply_default_css=False,
    )
    started = gr.Textbox(visible="hidden", elem_id="started")

    def design(values: dict[Any, Any], request: gr.Request) -> str:
        """Start a design and return its name."""
        given = {name: values[field] for name, field in fields.items()}
        given["model"] = "" if given["model"] == ANY_MODEL else given["model"]
        try:
            row = Wish.read(given).row()
            return desk.start(request.headers[OWNER_HEADER], row).id
        except OrbweaveError as err:
            raise gr.Error(escape(str(err)), title="Not yet", print_exception=False) from err

    asked = gr.on(
        [begin.click, concept.submit],
        design,
        inputs=set(fields.values()),
        outputs=started,
        api_visibility="private",
        show_progress="hidden",
        concurrency_limit=8,
    )
    asked.success(None, started, None, js="(id) => { window.orbweave.open(id); }")


def _settings() -> dict[str, Any]:
    """Lay out the settings; return them by the names of `Wish`."""
    with gr.Accordion("Settings", open=False, elem_id="settings"):
        with gr.Row():
            scale = gr.Dropdown(list(SCALES), value=SCALES[0], label="Scale")
            team = gr.Dropdown(order.teams(), value="default", label="Team")
            model = gr.Dropdown(
                [ANY_MODEL, *order.models("language")], value=ANY_MODEL, label="Language model"
            )
            image_model = gr.Dropdown(order.models("image"), value="loom", label="Image model")
        domains = gr.CheckboxGroup(
            list(DOMAINS), label="Experts", info="None ticked: those the concept asks for."
        )
        with gr.Row():
            rounds = gr.Slider(1, order.MAX_ROUNDS, value=2, step=1, label="Rounds")
            images = gr.Slider(1, order.MAX_IMAGES, value=2, step=1, label="Pictures")
            steps = gr.Slider(1, order.MAX_STEPS, value=24, step=1, label="Steps")
            guidance = gr.Slider(0, 20, value=3, step=0.5, label="Guidance")
        with gr.Row():
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**32 - 1)
            size = gr.Dropdown(
                list(SIZES), value="256", label="Size in pixels", allow_custom_value=True
            )
            structure = gr.Dropdown(["auto", "none"], value="auto", label="Geometry")
        with gr.Row():
            # Not numbers: an empty number is 0 to Gradio, and 0 can be wanted.
            solid = gr.Textbox(label="Wanted solid fraction", placeholder="0 to 1", max_length=9)
            direction = gr.Textbox(label="Wanted direction", placeholder="degrees", max_length=9)
            spacing = gr.Textbox(label="Wanted spacing", placeholder="pixels", max_length=9)
    return {
        "scale": scale,
        "team": team,
        "model": model,
        "image_model": image_model,
        "domains": domains,
        "rounds": rounds,
        "images": images,
        "steps": steps,
        "guidance": guidance,
        "seed": seed,
        "size": size,
        "structure": structure,
        "solid_fraction": solid,
        "direction_deg": direction,
        "spacing_px": spacing,
    }
