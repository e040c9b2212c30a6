"""An answer with its evidence as one page: the cited frames with boxes, the text, the verdicts, the election. Pure.

Guarantees: the page is one file that loads nothing and runs nothing, as its content security policy demands; every
text that a model or a user wrote is escaped, and none of its characters is invisible (evidence/visible); nothing is
shown that is not in the answer; equal answers give equal pages.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from evidence.answers import KEYFRAMES
from evidence.drawing import Marked, enlarged
from evidence.types import FrameInfo
from orchestration.answering.answers import Answered, Evidence, Reply
from orchestration.answering.page_election import election_section
from orchestration.answering.page_parts import badge, box_text, colour, css_colour, escaped
from orchestration.answering.page_style import STYLE

JPEG_QUALITY = 88
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Source:
    """What the page says about where the answer comes from: names of the file and of the models. referee: "" for
    none."""

    media: str
    model: str
    referee: str = ""


def page(answered: Answered, frames: Mapping[int, np.ndarray], source: Source) -> str:
    """The page as HTML. frames: uint8 [H, W, 3] of each frame that the (first) reply cites, by number."""
    reply = answered.replies[0]
    body = "".join(
        (
            _head(answered, source),
            _answer(reply),
            _frames(reply, answered.info, frames),
            _text(reply),
            _claims(reply, source),
            election_section(answered.outcome) if answered.outcome else "",
            "<footer class='soft'>Made by <code>ser answer</code>. This page loads nothing and runs nothing.</footer>",
        )
    )
    return (
        "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        f"<title>{escaped(answered.question)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _head(answered: Answered, source: Source) -> str:
    info = answered.info
    count = len(info.times)
    shown = f"{count} frame{'s' * (count > 1)} of {info.size[0]} × {info.size[1]} pixels"
    length = f" from {info.duration:.1f} s" if info.duration else ""
    referee = f" · judged by {escaped(source.referee)}" if source.referee else ""
    return (
        f"<p class='soft'>Question</p><h1>{escaped(answered.question)}</h1>"
        f"<p class='soft'>{escaped(source.media)}: {shown}{length} · answered by {escaped(source.model)}{referee}</p>"
    )


def _answer(reply: Reply) -> str:
    if reply.answer is None:
        return "<p class='answer fault'>The model wrote no answer.</p>"
    return f"<p class='answer'><span class='soft'>Answer</span>{escaped(reply.answer)}</p>"


def _frames(reply: Reply, info: FrameInfo, frames: Mapping[int, np.ndarray]) -> str:
    if not reply.frames:
        return "<h2>Evidence</h2><p class='soft'>The model cites no frame.</p>"
    figures = "".join(_figure(number, reply, info, frames[number]) for number in reply.frames)
    return f"<h2>Evidence</h2><div class='frames'>{figures}</div>"


def _figure(number: int, reply: Reply, info: FrameInfo, frame: np.ndarray) -> str:
    here = [(n, evidence) for n, evidence in enumerate(reply.evidence, 1) if evidence.frame == number]
    marks = [Marked(evidence.claim.box, colour(n), str(n)) for n, evidence in here if evidence.claim.box is not None]
    image = enlarged(frame, marks)
    lines = [f"<strong>{info.times[number]:.1f} s</strong> <span class='soft'>frame {number}</span>"]
    lines += [f"{badge(n)} {escaped(evidence.claim.phrase)}" for n, evidence in here]
    if number in reply.cited:
        lines.append("<span class='soft'>cited as a key frame</span>")
    caption = "".join(f"<div>{line}</div>" for line in lines)
    alt = f"Frame {number} at {info.times[number]:.1f} s"
    source = _data_uri(image, lossless=image.shape != frame.shape)
    return f"<figure id='frame-{number}'><img src='{source}' alt='{alt}'><figcaption>{caption}</figcaption></figure>"


def _data_uri(image: np.ndarray, lossless: bool) -> str:
    """An image of enlarged pixels is small as PNG, any other as JPEG."""
    file = io.BytesIO()
    if lossless:
        Image.fromarray(image).save(file, "PNG", optimize=True)
    else:
        Image.fromarray(image).save(file, "JPEG", quality=JPEG_QUALITY)
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _text(reply: Reply) -> str:
    cut = "" if reply.finish_reason == "stop" else "<p class='soft'>It was cut at its greatest length.</p>"
    return f"<h2>What the model wrote</h2><pre>{''.join(_linked(reply))}</pre>{cut}"


def _linked(reply: Reply) -> Iterator[str]:
    """The text as HTML, with its claims and the numbers of its key frames as links."""
    position = 0
    for start, end, link in sorted([*_claim_links(reply), *_frame_links(reply)]):
        if start >= position:
            yield escaped(reply.text[position:start])
            yield link
            position = end
    yield escaped(reply.text[position:])


def _claim_links(reply: Reply) -> Iterator[tuple[int, int, str]]:
    """(start, end, HTML) of each claim; several boxes of one object are one piece of text."""
    claims: dict[tuple[int, int], list[int]] = {}
    for n, evidence in enumerate(reply.evidence, 1):
        claims.setdefault(evidence.claim.span, []).append(n)
    for (start, end), numbers in claims.items():
        frame = reply.evidence[numbers[0] - 1].frame
        content = "".join(map(badge, numbers)) + escaped(reply.text[start:end])
        tag = "span" if frame is None else f"a href='#frame-{frame}'"
        yield start, end, f"<{tag} class='claim' {css_colour(numbers[0])}>{content}</{tag.split()[0]}>"


def _frame_links(reply: Reply) -> Iterator[tuple[int, int, str]]:
    """(start, end, HTML) of each number in the text's `<keyframes>` that names a frame."""
    places = reply.view.places(reply.shown)
    for match in list(KEYFRAMES.finditer(reply.text))[:1]:
        closes = reply.text.find("</keyframes>", match.end())
        for number in NUMBER.finditer(reply.text, match.end(), max(closes, match.end())):
            if len(number[0]) <= 9 and int(number[0]) < len(places):
                yield number.start(), number.end(), f"<a href='#frame-{places[int(number[0])]}'>{number[0]}</a>"


def _claims(reply: Reply, source: Source) -> str:
    if not reply.evidence:
        return ""
    verdicts = (
        "<th class='number'>relevance<th class='number'>box fits<th class='number'>score" if source.referee else ""
    )
    rows = "".join(_row(n, evidence, bool(source.referee)) for n, evidence in enumerate(reply.evidence, 1))
    note = (
        "<p class='soft'>The referee sees the frame and the box, and not the answer: does the box bear on the question "
        "(relevance), and does it hold the named object tightly (box fits)? From 0 to 1.</p>"
        if source.referee
        else ""
    )
    head = f"<tr><th>#<th>object<th>time<th>box, pixels{verdicts}</tr>"
    return f"<h2>Claims</h2><div class='wide'><table>{head}{rows}</table></div>{note}"


def _row(n: int, evidence: Evidence, with_verdict: bool) -> str:
    claim, score = evidence.claim, evidence.score
    cells = [badge(n), escaped(claim.phrase) or "–", _time(evidence), "–" if claim.box is None else box_text(claim.box)]
    row = "".join(f"<td>{cell}" for cell in cells)
    fault = claim.reason if score is None else score.verdict.flag
    if not with_verdict:
        return f"<tr>{row}{f'<td class=fault>{escaped(fault)}' if fault else ''}</tr>"
    if score is None or fault:
        return f"<tr>{row}<td class='number fault' colspan='3'>{escaped(fault or 'not judged')}</tr>"
    values = (score.verdict.relevance, score.verdict.localization, score.score)
    return f"<tr>{row}{''.join(f'<td class=number>{value:.2f}' for value in values)}</tr>"


def _time(evidence: Evidence) -> str:
    claim = evidence.claim
    if claim.time is None:
        return "–"
    time = f"{claim.time:.1f} s" if claim.until is None else f"{claim.time:.1f}–{claim.until:.1f} s"
    return f"<a href='#frame-{evidence.frame}'>{time}</a>"
