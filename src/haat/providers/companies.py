"""The two providers whose services come with the platform."""

from haat.models.hosted import Company

AKSHARA = Company(
    slug="akshara",
    name="Akshara Text Lab",
    email="services@akshara.localhost",
    contact_person="Meera Kulkarni",
    business_type="company",
)
VANI = Company(
    slug="vani",
    name="Vani Speech and Translation",
    email="services@vani.localhost",
    contact_person="Imran Qureshi",
    business_type="company",
)
