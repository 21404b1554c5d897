"""How the studio looks: paper and ink by day, the same by night; no font is fetched."""

from __future__ import annotations

import gradio as gr

__all__ = ["theme"]

SERIF = ("ui-serif", "Iowan Old Style", "Palatino", "Georgia", "serif")
SANS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "monospace")
MOSS = gr.themes.Color(
    name="moss",
    c50="#f1f5ec",
    c100="#e0e9d6",
    c200="#c3d4b1",
    c300="#a0ba87",
    c400="#7d9d61",
    c500="#5f8044",
    c600="#496735",
    c700="#3a522b",
    c800="#2f4224",
    c900="#27371f",
    c950="#141e0f",
)
INK = gr.themes.Color(
    name="ink",
    c50="#faf7f0",
    c100="#f2ede2",
    c200="#e3dccd",
    c300="#cdc4b1",
    c400="#a1977f",
    c500="#766d58",
    c600="#5c5443",
    c700="#464034",
    c800="#2b2822",
    c900="#201e1a",
    c950="#171613",
)


def theme() -> gr.themes.Base:
    """Return the theme; text on its ground has a contrast of 4.5 or more, by day and night."""
    return gr.themes.Base(
        primary_hue=MOSS,
        secondary_hue=MOSS,
        neutral_hue=INK,
        font=SANS,
        font_mono=MONO,
        radius_size=gr.themes.sizes.radius_sm,
    ).set(
        body_background_fill="#faf7f0",
        body_background_fill_dark="#191815",
        body_text_color="#26231d",
        body_text_color_dark="#e9e4d8",
        body_text_color_subdued="#5c5443",
        body_text_color_subdued_dark="#b3aa97",
        background_fill_primary="#fffdf8",
        background_fill_primary_dark="#211f1b",
        background_fill_secondary="#f4efe4",
        background_fill_secondary_dark="#191815",
        block_background_fill="#fffdf8",
        block_background_fill_dark="#211f1b",
        block_border_color="#e3dccd",
        block_border_color_dark="#3a362e",
        block_shadow="none",
        block_label_text_color="#464034",
        block_label_text_color_dark="#cfc7b5",
        block_info_text_color="#5c5443",
        block_info_text_color_dark="#b3aa97",
        block_title_text_color="#464034",
        block_title_text_color_dark="#cfc7b5",
        border_color_primary="#d8cfbc",
        border_color_primary_dark="#48433a",
        input_background_fill="#ffffff",
        input_background_fill_dark="#171613",
        input_border_width="1px",
        input_border_color="#a1977f",
        input_border_color_dark="#766d58",
        input_placeholder_color="#6b6350",
        input_placeholder_color_dark="#a1977f",
        link_text_color="#3a522b",
        link_text_color_dark="#a0ba87",
        button_primary_background_fill="#3a522b",
        button_primary_background_fill_hover="#2f4224",
        button_primary_background_fill_dark="#a0ba87",
        button_primary_background_fill_hover_dark="#c3d4b1",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#141e0f",
    )
