"""What the tour says: everyday sentences in twelve languages, and the calls made of them.

The calls are the same on every run, differ from one another, and ask each service only for what its
listing offers. Services whose engine is not installed are left out.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from itertools import islice, pairwise
from typing import Any

from haat.plugins.manager import hosted, hosted_services

HINDI = (
    "आज मौसम बहुत अच्छा है।",
    "मुझे एक कप चाय चाहिए।",
    "आपका नाम क्या है?",
    "मेरा भाई दिल्ली में रहता है।",
    "ट्रेन आज देर से आएगी।",
    "क्या आप मेरी मदद कर सकते हैं?",
    "पानी बहुत ठंडा है।",
    "मुझे यह गाना पसंद है।",
    "यह किताब कितने की है?",
    "हम कल सुबह बाजार जाएँगे।",
    "दुकान रात नौ बजे बंद होती है।",
    "कल शाम हमारे घर आइए।",
    "मेरी बहन डॉक्टर है और गाँव में काम करती है।",
    "अगला बस अड्डा यहाँ से कितनी दूर है?",
)
URDU = (
    "آج موسم بہت اچھا ہے۔",
    "مجھے ایک کپ چائے چاہیے۔",
    "آپ کا نام کیا ہے؟",
    "میرا بھائی لاہور میں رہتا ہے۔",
    "ہم کل بازار جائیں گے۔",
    "پانی بہت ٹھنڈا ہے۔",
    "کیا آپ میری مدد کر سکتے ہیں؟",
    "یہ کتاب بہت اچھی ہے۔",
    "دکان رات نو بجے بند ہوتی ہے۔",
    "کل شام ہمارے گھر آئیے۔",
)
TAMIL = (
    "இன்று வானிலை மிகவும் நன்றாக இருக்கிறது.",
    "எனக்கு ஒரு கப் காபி வேண்டும்.",
    "உங்கள் பெயர் என்ன?",
    "பேருந்து நிலையம் எங்கே இருக்கிறது?",
    "நாளை காலை சந்திப்போம்.",
    "இந்தப் புத்தகத்தின் விலை என்ன?",
    "என் தம்பி சென்னையில் வேலை செய்கிறான்.",
    "கடை ஒன்பது மணிக்கு மூடப்படும்.",
)
BENGALI = (
    "আজ আবহাওয়া খুব ভালো।",
    "আমি এক কাপ চা চাই।",
    "আপনার নাম কী?",
    "বাজার এখান থেকে কত দূর?",
    "কাল সকালে আমরা গ্রামে যাব।",
    "এই বইটার দাম কত?",
    "আমার ভাই কলকাতায় থাকে।",
    "দোকান রাত নয়টায় বন্ধ হয়।",
)
MARATHI = (
    "आज हवामान खूप छान आहे.",
    "मला एक कप चहा हवा आहे.",
    "तुमचे नाव काय आहे?",
    "बस स्थानक कुठे आहे?",
    "उद्या सकाळी आपण गावाला जाऊ.",
    "या पुस्तकाची किंमत किती आहे?",
    "माझा भाऊ पुण्यात राहतो.",
    "दुकान रात्री नऊ वाजता बंद होते.",
)
TELUGU = (
    "ఈ రోజు వాతావరణం చాలా బాగుంది.",
    "నాకు ఒక కప్పు టీ కావాలి.",
    "మీ పేరు ఏమిటి?",
    "బస్ స్టాండ్ ఎక్కడ ఉంది?",
    "రేపు ఉదయం కలుద్దాం.",
    "ఈ పుస్తకం ధర ఎంత?",
    "మా అన్నయ్య హైదరాబాదులో ఉంటాడు.",
    "దుకాణం రాత్రి తొమ్మిది గంటలకు మూస్తారు.",
)
ENGLISH = (
    "The weather is lovely today.",
    "I would like a cup of tea, please.",
    "The train was two hours late and nobody told us why.",
    "Your shop has the best mangoes in town!",
    "The room was dirty and the fan did not work.",
    "My brother works at the post office.",
    "Please send the bill to my office address.",
    "We are very happy with the new well in our village.",
    "The parcel arrived broken, and I am quite disappointed.",
    "The next bus leaves at half past eight.",
    "Thank you so much for your kind help.",
    "The price of onions has gone up again.",
)
GUJARATI = ("આજે હવામાન ખૂબ સારું છે.", "મને એક કપ ચા જોઈએ છે.", "તમારું નામ શું છે?", "દુકાન રાત્રે નવ વાગ્યે બંધ થાય છે.")
KANNADA = ("ಇಂದು ಹವಾಮಾನ ತುಂಬಾ ಚೆನ್ನಾಗಿದೆ.", "ನನಗೆ ಒಂದು ಕಪ್ ಕಾಫಿ ಬೇಕು.", "ನಿಮ್ಮ ಹೆಸರು ಏನು?", "ಬಸ್ ನಿಲ್ದಾಣ ಎಲ್ಲಿದೆ?")
MALAYALAM = ("ഇന്ന് കാലാവസ്ഥ വളരെ നല്ലതാണ്.", "എനിക്ക് ഒരു ചായ വേണം.", "നിങ്ങളുടെ പേര് എന്താണ്?", "നാളെ രാവിലെ കാണാം.")
PUNJABI = ("ਅੱਜ ਮੌਸਮ ਬਹੁਤ ਚੰਗਾ ਹੈ।", "ਮੈਨੂੰ ਇੱਕ ਕੱਪ ਚਾਹ ਚਾਹੀਦੀ ਹੈ।", "ਤੁਹਾਡਾ ਨਾਮ ਕੀ ਹੈ?", "ਬਾਜ਼ਾਰ ਇੱਥੋਂ ਕਿੰਨੀ ਦੂਰ ਹੈ?")
ODIA = ("ଆଜି ପାଗ ବହୁତ ଭଲ ଅଛି।", "ମୋତେ କପେ ଚା ଦରକାର।", "ଆପଣଙ୍କ ନାମ କ'ଣ?", "ଦୋକାନ ରାତି ନଅଟାରେ ବନ୍ଦ ହୁଏ।")

SENTENCES: dict[str, tuple[str, ...]] = {
    "hi-Deva": HINDI,
    "ur-Arab": URDU,
    "ta-Taml": TAMIL,
    "bn-Beng": BENGALI,
    "mr-Deva": MARATHI,
    "te-Telu": TELUGU,
    "en-Latn": ENGLISH,
    "gu-Gujr": GUJARATI,
    "kn-Knda": KANNADA,
    "ml-Mlym": MALAYALAM,
    "pa-Guru": PUNJABI,
    "or-Orya": ODIA,
}

PARAGRAPHS: dict[str, tuple[str, ...]] = {
    "en-Latn": (
        "The library in our town opened a reading room for children last year. At first only a few children "
        "came. Then the library asked the schools to bring a class each week, and now the reading room is "
        "full every afternoon. Somebody also planted a neem tree outside. The children may borrow two books, "
        "and most of them return for more books within the week.",
        "Rain came early this June, and the farmers sowed their rice two weeks before the usual date. The "
        "canal had been repaired in spring, so the water reached even the last fields. A film crew visited "
        "the village for a day. The farmers expect a good harvest of rice if the rain and the canal do not "
        "fail them in August.",
        "The bus company will run electric buses between the station and the hospital from Monday. An "
        "electric bus makes less noise, and each bus needs an hour to charge. Tickets cost the same as "
        "before. The company says that all its buses will be electric in five years.",
    ),
    "hi-Deva": (
        "हमारे गाँव में पिछले साल एक नया पुस्तकालय खुला। पुस्तकालय में बच्चों के लिए कहानियों की बहुत सी "
        "किताबें हैं। बाहर एक पुराना बरगद का पेड़ है। बच्चे हर शाम पुस्तकालय में किताबें पढ़ने आते हैं। "
        "अब गाँव के बड़े लोग भी अख़बार पढ़ने वहाँ जाते हैं।",
        "इस साल बारिश समय पर आई और किसानों ने धान की बुवाई जल्दी शुरू की। नहर की मरम्मत होने से पानी हर "
        "खेत तक पहुँचा। मेले में इस बार झूले नहीं लगे। किसानों को उम्मीद है कि धान की फसल अच्छी होगी। "
        "अच्छी फसल से गाँव का कर्ज़ कम होगा।",
        "शहर में सोमवार से बिजली की बसें चलेंगी। बिजली की बस में धुआँ नहीं निकलता और शोर भी कम होता है। "
        "टिकट का दाम वही रहेगा। एक बस को चार्ज होने में एक घंटा लगता है। पाँच साल में शहर की सब बसें "
        "बिजली से चलेंगी।",
    ),
}

NOTICES = {"en-Latn": "notice-en", "hi-Deva": "notice-hi", "ta-Taml": "notice-ta", "bn-Beng": "notice-bn"}
COMMANDS = (
    "turn on the light",
    "turn off the light",
    "open the door",
    "close the door",
    "play music",
    "stop",
    "call my mother",
    "what is the time",
)


@dataclass(frozen=True, slots=True)
class TourCall:
    """One call of the tour: which service, with what body, to what path beneath it."""

    service: str
    body: dict[str, Any]
    path: str = "/invoke"


def tour_calls() -> list[TourCall]:
    """Return calls to every built-in service whose engine is installed, those of different services mixed."""
    makers = {
        "akshara/transliterate": islice(_transliterate(), 180),
        "akshara/detect-language": islice(_detect(), 130),
        "akshara/sentiment": islice(_sentiment(), 60),
        "akshara/text-similarity": islice(_similarity(), 130),
        "akshara/summarise": islice(_summarise(), 36),
        "akshara/named-entities": islice(_entities(), 26),
        "akshara/moderate": islice(_moderate(), 40),
        "akshara/embed": islice(_embed(), 60),
        "akshara/chat": islice(_chat(), 20),
        "vani/translate-hi-ur": islice(_translate(), 48),
        "vani/text-to-speech": islice(_speak(), 60),
        "vani/ocr": islice(_read(), 8),
        "vani/spoken-command": islice(_command(), 40),
        "vani/voice-activity": islice(_activity(), 16),
        "vani/dictation": islice(_dictation(), 8),
    }
    services = hosted()
    calls = {
        path: [TourCall(path, body, services[path].sample_path) for body in maker]
        for path, maker in makers.items()
        if not services[path].missing()
    }
    # Spread each service's calls evenly over the tour: sort by how far along its own list a call is.
    placed = [((index + 0.5) / len(own), call) for own in calls.values() for index, call in enumerate(own)]
    return [call for _, call in sorted(placed, key=lambda pair: pair[0])]


def _texts(*texts: str) -> list[dict[str, str]]:
    return [{"text": text} for text in texts]


def _transliterate() -> Iterator[dict[str, Any]]:
    pairs = hosted_services()["akshara/transliterate"].language_pairs
    for turn in range(4):
        for pair in pairs:
            source, _, target = pair.partition(">")
            if source in SENTENCES:  # not what begins in Latin letters
                text = SENTENCES[source][turn % len(SENTENCES[source])]
                yield {"input": _texts(text), "config": {"source": source, "target": target}}


def _detect() -> Iterator[dict[str, Any]]:
    everything = [sentence for sentences in SENTENCES.values() for sentence in sentences]
    for sentence in everything:
        yield {"input": _texts(sentence)}
    for start in range(len(everything) - 1):
        yield {"input": _texts(everything[start], everything[start + 1])}


def _sentiment() -> Iterator[dict[str, Any]]:
    for step in range(1, len(ENGLISH)):
        for start, sentence in enumerate(ENGLISH):
            yield {
                "input": _texts(f"{sentence} {ENGLISH[(start + step) % len(ENGLISH)]}"),
                "config": {"language": "en"},
            }


def _similarity() -> Iterator[dict[str, Any]]:
    for step in (1, 2, 3):
        for sentences in SENTENCES.values():
            for start, sentence in enumerate(sentences):
                other = sentences[(start + step) % len(sentences)]
                method = ("edit", "jaccard", "ngram", "weighted")[(start + step) % 4]
                yield {"input": [{"text": sentence, "other": other}], "config": {"method": method}}


def _summarise() -> Iterator[dict[str, Any]]:
    for method in ("luhn", "reduction"):
        for count in (1, 2, 3):
            for language, paragraphs in PARAGRAPHS.items():
                for paragraph in paragraphs:
                    config = {"language": language, "sentences": count, "method": method}
                    yield {"input": _texts(paragraph), "config": config}


def _entities() -> Iterator[dict[str, Any]]:
    for language in ("en-Latn", "hi-Deva"):
        for sentence in (*PARAGRAPHS[language], *SENTENCES[language]):
            yield {"input": _texts(sentence), "config": {"language": language}}


def _moderate() -> Iterator[dict[str, Any]]:
    for language in ("en-Latn", "hi-Deva", "bn-Beng", "mr-Deva", "ta-Taml", "te-Telu", "ur-Arab"):
        for sentence in SENTENCES[language]:
            yield {"input": _texts(sentence)}


def _embed() -> Iterator[dict[str, Any]]:
    for sentences in SENTENCES.values():
        for first, second in pairwise(sentences):
            yield {"input": _texts(first, second)}


def _chat() -> Iterator[dict[str, Any]]:
    for seed, (first, second) in enumerate(zip(ENGLISH, HINDI, strict=False)):
        for sentence in (first, second):
            yield {"messages": [{"role": "user", "content": sentence}], "max_tokens": 80, "seed": seed}


def _translate() -> Iterator[dict[str, Any]]:
    for size in (1, 2):
        for source, target in (("hi-Deva", "ur-Arab"), ("ur-Arab", "hi-Deva")):
            sentences = SENTENCES[source]
            for start in range(len(sentences)):
                chosen = [sentences[(start + offset) % len(sentences)] for offset in range(size)]
                yield {"input": _texts(*chosen), "config": {"source": source, "target": target}}


def _speak() -> Iterator[dict[str, Any]]:
    spoken = hosted_services()["vani/text-to-speech"].languages
    for turn in range(8):
        for language, sentences in SENTENCES.items():
            if language in spoken:
                voice = ("standard", "female", "male")[turn % 3]
                text = sentences[turn % len(sentences)]
                rate = 140 + 10 * (turn // 4)
                yield {"input": _texts(text), "config": {"language": language, "voice": voice, "rate": rate}}


def _read() -> Iterator[dict[str, Any]]:
    for layout in ("block", "page"):
        for language, name in NOTICES.items():
            image = {"content": _sample(f"{name}.png"), "format": "png"}
            yield {"input": [{"image": image}], "config": {"language": language, "layout": layout}}


def _command() -> Iterator[dict[str, Any]]:
    for fewer in range(5):
        for command in COMMANDS:
            others = [other for other in COMMANDS if other != command]
            audio = {"content": _sample(f"{command.replace(' ', '-')}.wav"), "format": "wav"}
            config = {"language": "en-Latn", "commands": [command, *others[fewer:]]}
            yield {"input": [{"audio": audio}], "config": config}


def _activity() -> Iterator[dict[str, Any]]:
    for mode in (2, 3):
        for command in COMMANDS:
            audio = {"content": _sample(f"{command.replace(' ', '-')}.wav"), "format": "wav"}
            yield {"input": [{"audio": audio}], "config": {"mode": mode}}


def _dictation() -> Iterator[dict[str, Any]]:
    for command in COMMANDS:
        audio = {"content": _sample(f"{command.replace(' ', '-')}.wav"), "format": "wav"}
        yield {"input": [{"audio": audio}], "config": {"language": "en-Latn"}}


def _sample(name: str) -> str:
    file = resources.files("haat.providers.vani").joinpath("samples", name)
    return base64.b64encode(file.read_bytes()).decode()
