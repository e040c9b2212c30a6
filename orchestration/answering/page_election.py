"""The section of an answer's page about its election: why the answer won, and every candidate. Pure."""

from __future__ import annotations

from orchestration.answering.answers import Outcome, Reply
from orchestration.answering.page_parts import escaped


def election_section(outcome: Outcome) -> str:
    vote_head = "<tr><th>answer<th><th class='number'>votes<th>candidates</tr>"
    votes = f"<div class='wide'><table>{vote_head}{_votes(outcome)}</table></div>" if outcome.votes else ""
    head = (
        "<tr><th class='number'>#<th>answer<th class='number'>score<th class='number'>vote"
        "<th class='number'>temperature<th>input<th>text</tr>"
    )
    rows = "".join(_row(n, reply, outcome) for n, reply in enumerate(outcome.replies))
    return (
        f"<h2>Election</h2><p>{escaped(reason(outcome))}</p>{votes}"
        f"<h2>Candidates</h2><div class='wide'><table>{head}{rows}</table></div>"
    )


def reason(outcome: Outcome) -> str:
    """Why the answer won, in plain sentences."""
    elected, counted = outcome.elected, len(outcome.replies)
    drawn = f"{counted} candidate{'s' * (counted != 1)} counted"
    cancelled = outcome.begun - counted
    drawn += f", {cancelled} more cancelled when the election ended" if cancelled else ""
    if elected.winner is None:
        return f"Nothing is elected by {outcome.method}: no candidate has an answer ({drawn})."
    first, total = outcome.votes[0], sum(vote.votes for vote in outcome.votes)
    parts = [f"Elected by {outcome.method}: “{first.answer}” has {first.votes:.2f} of {total:.2f} votes ({drawn})."]
    if len(outcome.votes) > 1:
        second = outcome.votes[1]
        parts.append(
            f"It leads “{second.answer}” ({second.votes:.2f}) by {100 * elected.margin:.0f}% of all votes."
            if first.votes > second.votes
            else f"“{second.answer}” has as many; of equal answers, the first given wins."
        )
    else:
        parts.append("No candidate gives another answer.")
    parts.append(f"The text above is candidate {elected.winner}, whose vote for it is the largest.")
    if outcome.sufficiency is not None:
        parts.append(f"The referee scored the evidence of the leading candidate {outcome.sufficiency:.2f}.")
    return " ".join(parts)


def _votes(outcome: Outcome) -> str:
    total = sum(vote.votes for vote in outcome.votes) or 1.0
    rows = ""
    for place, vote in enumerate(outcome.votes):
        share = vote.votes / total
        won = " class='won'" if place == 0 else ""
        rows += (
            f"<tr{won}><td>{escaped(vote.answer)}<td><meter value='{share:.3f}'>{share:.0%}</meter>"
            f"<td class='number'>{vote.votes:.3f}<td>{', '.join(map(str, vote.supporters))}</tr>"
        )
    return rows


def _row(number: int, reply: Reply, outcome: Outcome) -> str:
    elected = outcome.elected
    won = " class='won'" if number == elected.winner else ""
    answer = "<span class='fault'>no answer</span>" if reply.answer is None else escaped(reply.answer)
    return (
        f"<tr{won}><td class='number'>{number}<td>{answer}<td class='number'>{elected.scores[number]:.3f}"
        f"<td class='number'>{elected.weights[number]:.3f}<td class='number'>{reply.temperature:g}"
        f"<td>{escaped(reply.view.name)}"
        f"<td><details><summary>read</summary><pre>{escaped(reply.text)}</pre></details></tr>"
    )
