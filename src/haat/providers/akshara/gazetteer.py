"""Names that the entity rules know: Indian states and large cities, months, weekdays, titles, units and currencies.

English and Hindi. What is a word of everyday speech as well (सूरत, a face; कोटा, a quota) is left out.
"""

from __future__ import annotations


def _listed(names: str) -> tuple[str, ...]:
    return tuple(names.split("|"))


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STATES = """
Andhra Pradesh|Arunachal Pradesh|Assam|Bihar|Chhattisgarh|Goa|Gujarat|Haryana|Himachal Pradesh|Jharkhand|Karnataka
Kerala|Madhya Pradesh|Maharashtra|Manipur|Meghalaya|Mizoram|Nagaland|Odisha|Orissa|Punjab|Rajasthan|Sikkim|Tamil Nadu
Telangana|Tripura|Uttar Pradesh|Uttarakhand|West Bengal|Andaman and Nicobar Islands|Chandigarh|Dadra and Nagar Haveli
Daman and Diu|Delhi|New Delhi|Jammu and Kashmir|Kashmir|Ladakh|Lakshadweep|Puducherry|India|Bharat
आंध्र प्रदेश|आन्ध्र प्रदेश|अरुणाचल प्रदेश|असम|बिहार|छत्तीसगढ़|गोवा|गुजरात|हरियाणा|हिमाचल प्रदेश|झारखंड|झारखण्ड|कर्नाटक
केरल|मध्य प्रदेश|महाराष्ट्र|मणिपुर|मेघालय|मिज़ोरम|नागालैंड|ओडिशा|उड़ीसा|पंजाब|राजस्थान|सिक्किम|तमिलनाडु|तमिल नाडु
तेलंगाना|त्रिपुरा|उत्तर प्रदेश|उत्तराखंड|उत्तराखण्ड|पश्चिम बंगाल|अंडमान और निकोबार|चंडीगढ़|दिल्ली|नई दिल्ली
जम्मू और कश्मीर|कश्मीर|लद्दाख|लक्षद्वीप|पुडुचेरी|भारत
"""

CITIES = """
Agra|Ahmedabad|Ajmer|Aligarh|Allahabad|Amravati|Amritsar|Aurangabad|Bareilly|Bengaluru|Bangalore|Bhopal|Bhubaneswar
Bikaner|Bombay|Calcutta|Chennai|Coimbatore|Cuttack|Dehradun|Dhanbad|Faridabad|Gangtok|Gaya|Ghaziabad|Gorakhpur|Gurgaon
Gurugram|Guwahati|Gwalior|Howrah|Hubli|Hyderabad|Imphal|Indore|Jabalpur|Jaipur|Jalandhar|Jammu|Jamshedpur|Jhansi|Jodhpur
Kanpur|Kochi|Kolkata|Kota|Kozhikode|Lucknow|Ludhiana|Madras|Madurai|Mangaluru|Meerut|Moradabad|Mumbai|Mysuru|Mysore
Nagpur|Nashik|Navi Mumbai|Noida|Panaji|Patna|Prayagraj|Pune|Raipur|Rajkot|Ranchi|Salem|Shillong|Shimla|Siliguri|Srinagar
Surat|Thane|Thiruvananthapuram|Tiruchirappalli|Udaipur|Ujjain|Vadodara|Varanasi|Vijayawada|Visakhapatnam|Warangal
आगरा|अहमदाबाद|अजमेर|अलीगढ़|इलाहाबाद|अमृतसर|औरंगाबाद|बरेली|बेंगलुरु|बंगलौर|भोपाल|भुवनेश्वर|बीकानेर|चेन्नई|कोयंबटूर|कटक
देहरादून|धनबाद|फ़रीदाबाद|ग़ाज़ियाबाद|गोरखपुर|गुड़गाँव|गुरुग्राम|गुवाहाटी|ग्वालियर|हावड़ा|हैदराबाद|इंफाल|इंदौर|जबलपुर|जयपुर
जालंधर|जम्मू|जमशेदपुर|झाँसी|जोधपुर|कानपुर|कोच्चि|कोलकाता|लखनऊ|लुधियाना|मदुरै|मेरठ|मुरादाबाद|मुंबई|मुम्बई|मैसूर|नागपुर
नासिक|नवी मुंबई|नोएडा|पणजी|पटना|प्रयागराज|पुणे|रायपुर|राजकोट|राँची|शिलांग|शिमला|सिलीगुड़ी|श्रीनगर|ठाणे|तिरुवनंतपुरम|उदयपुर
उज्जैन|वडोदरा|वाराणसी|विजयवाड़ा|विशाखापत्तनम
"""

MONTHS = (
    *_listed("January|February|March|April|May|June|July|August|September|October|November|December"),
    *_listed("जनवरी|फ़रवरी|फरवरी|मार्च|अप्रैल|मई|जून|जुलाई|अगस्त|सितंबर|सितम्बर|अक्टूबर|अक्तूबर|नवंबर|नवम्बर|दिसंबर|दिसम्बर"),
)
SHORT_MONTHS = _listed("Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept|Sep|Oct|Nov|Dec")
LONE_MONTHS = tuple(month for month in MONTHS if month not in ("March", "May"))
"""Months that are dates without a day too: May and March are other words as well."""

WEEKDAYS = (
    *_listed("Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday"),
    *_listed("सोमवार|मंगलवार|बुधवार|गुरुवार|बृहस्पतिवार|शुक्रवार|शनिवार|रविवार|इतवार"),
)
DAYS = (
    *_listed("today|tomorrow|yesterday|the day after tomorrow|the day before yesterday"),
    *_listed("आज|कल|परसों"),
)

LATIN_TITLES = _listed("Mr|Mrs|Ms|Dr|Prof|Shri|Sri|Smt|Shrimati|Kumari|Pandit|Ustad|Swami|Justice|Capt|Col|Gen")
HINDI_TITLES = _listed("श्रीमती|श्री|सुश्री|डॉ|प्रो|कुमारी|पंडित|उस्ताद|स्वामी")
NO_NAMES = _words(
    """
    के की का को ने में से पर जी है हैं था थे थी हो और या तथा भी ही तो यह वह ये वे इस उस एक दो तक साथ लिए नहीं न मत
    आज कल अब जब तब यहाँ वहाँ क्या क्यों कैसे कौन बोले बोलीं कहा कहते कहती आए आई आया गए गई गया रहे रही रहते रहती हूँ
    """
)
"""Words that end a name behind a Hindi title."""

CURRENCY_SIGNS = _listed("₹|Rs.|Rs|INR|USD|EUR|GBP|$|€|£|रु.|रु")
CURRENCIES = _listed(
    "rupees|rupee|paise|paisa|dollars|dollar|euros|euro|pounds|pound|Rs.|Rs|INR|USD|EUR|GBP|₹|€"
    "|रुपये|रुपए|रुपया|रुपयों|पैसे|पैसा|डॉलर|यूरो|रु.|रु"
)
SCALES = _listed("hundred|thousand|lakhs|lakh|crores|crore|million|billion|सौ|हज़ार|हजार|लाख|करोड़|अरब")
UNITS = _listed(
    "kilograms|kilogram|kilos|kilo|kgs|kg|grams|gram|gm|g|tonnes|tonne|tons|ton|quintals|quintal"
    "|kilometres|kilometers|kilometre|kilometer|km|metres|meters|metre|meter|centimetres|centimeters|cm|mm|m|miles|mile"
    "|feet|foot|ft|inches|inch|acres|acre|hectares|hectare|litres|liters|litre|liter|ml|l|percent|per cent|%|°C"
    "|hours|hour|minutes|minute|seconds|second|days|day|weeks|week|months|month|years|year"
    "|किलोग्राम|किलोमीटर|किलो|ग्राम|टन|क्विंटल|मीटर|मील|फ़ुट|फुट|इंच|एकड़|हेक्टेयर|लीटर|प्रतिशत|फ़ीसदी|फीसदी|डिग्री"
    "|घंटे|घंटा|घंटों|मिनट|सेकंड|दिनों|दिन|हफ़्ते|हफ्ते|महीने|महीना|सालों|साल|वर्ष"
)
HINDI_HOURS = _listed("एक|दो|तीन|चार|पाँच|पांच|छह|छः|सात|आठ|नौ|दस|ग्यारह|बारह|डेढ़|ढाई")
ENGLISH_HOURS = _listed("one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve")


def places() -> list[str]:
    """Return the names of states and cities."""
    return [name for line in (STATES + CITIES).splitlines() for name in line.split("|") if name]
