"""The words that mails come with: whole in every language, and nothing of them left unfilled."""

from __future__ import annotations

import pytest

from haat.app import MAILS
from haat.infra.letters import MailTemplate, fill, in_line
from haat.language import parse_tag
from haat.language.messages import INTERFACE


@pytest.mark.parametrize("mail", MAILS, ids=lambda mail: mail.name)
def test_a_mail_says_the_same_in_every_language(mail: MailTemplate) -> None:
    mail.check(mail.subject, mail.text)
    said = {tag: mail.in_catalog(tag) for tag in INTERFACE}
    for words in filter(None, said.values()):
        mail.check(*words)
    if mail.name != "paper.issued":  # which has labels of its own
        assert said[parse_tag("hi")] is not None and said[parse_tag("ur")] is not None
    letter = fill(mail.subject, mail.text, dict.fromkeys(mail.required, "x"))
    assert not set("{}") & set(letter.subject + letter.text)


def test_no_two_mails_have_one_name() -> None:
    assert len({mail.name for mail in MAILS}) == len(MAILS)


def test_figures_keep_their_order_on_a_line_from_right_to_left() -> None:
    assert in_line("HT-2627-000001", parse_tag("hi")) == "HT-2627-000001"
    assert in_line("HT-2627-000001", parse_tag("ur")) == "\u2066HT-2627-000001\u2069"
