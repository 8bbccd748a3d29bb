"""Counts aksharas: a vowel, or consonants joined by virama, with what is written around them."""

import re

CONSONANT = "[\u0915-\u0939\u0958-\u095f\u0978-\u097f]\u093c?"
VIRAMA = "\u094d[\u200c\u200d]?"
SIGNS = "[\u093a\u093b\u093e-\u094d\u094f\u0955-\u0957\u0962\u0963]*"
VOWEL = "[\u0904-\u0914\u0960\u0961\u0972-\u0977]"
AKSHARA = re.compile(f"(?:{CONSONANT}(?:{VIRAMA}{CONSONANT})*{SIGNS}|{VOWEL})[\u0900-\u0903]*")


class Model:
    def predict(self, inputs):
        return [{"aksharas": len(AKSHARA.findall(one.text))} for one in inputs]
