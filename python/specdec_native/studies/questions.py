"""Short questions with answers, for studies that need some and were given none."""

from __future__ import annotations

from .data_sets import Sample

QUESTIONS = tuple(
    Sample(question, answer)
    for question, answer in (
        ("How many legs does a spider have?", "A spider has eight legs."),
        ("What do bees make from nectar?", "Bees make honey from nectar."),
        ("Which planet is closest to the Sun?", "Mercury is closest to the Sun."),
        ("At which temperature does water freeze?", "Water freezes at 0 degrees Celsius."),
        ("What is the largest ocean on Earth?", "The Pacific Ocean is the largest."),
        ("How many days does a leap year have?", "A leap year has 366 days."),
        ("What is the square root of 144?", "The square root of 144 is 12."),
        ("Which gas do plants take in from the air?", "Plants take in carbon dioxide."),
        ("Who wrote the play Hamlet?", "William Shakespeare wrote Hamlet."),
        ("What is the capital of Norway?", "Oslo is the capital of Norway."),
        ("How many sides does a hexagon have?", "A hexagon has six sides."),
        ("What instrument measures temperature?", "A thermometer measures temperature."),
        ("Which metal is liquid at room temperature?", "Mercury is liquid at room temperature."),
        ("What is frozen water called?", "Frozen water is called ice."),
        ("How many strings does a violin have?", "A violin has four strings."),
        ("What is the chemical symbol of iron?", "The symbol of iron is Fe."),
        ("Which season follows winter?", "Spring follows winter."),
        ("What does a baker make?", "A baker makes bread, rolls and cakes."),
        ("How long does the Earth take to turn once?", "It takes about 24 hours."),
        ("Which animal is known for building dams?", "The beaver builds dams."),
        ("What is the opposite of north?", "The opposite of north is south."),
        ("Why does the Moon shine?", "The Moon reflects the light of the Sun."),
        ("What is a group of wolves called?", "A group of wolves is called a pack."),
        ("How many minutes are in two hours?", "Two hours have 120 minutes."),
        ("Which organ pumps blood through the body?", "The heart pumps the blood."),
        ("What colour do blue and yellow paint make?", "Blue and yellow make green."),
        ("What is the main ingredient of paper?", "Paper is made mainly of wood fibres."),
        ("How do fish breathe?", "Fish breathe with gills, which take oxygen from water."),
        ("What is the name of the longest bone in the human body?", "It is the femur."),
        ("What does a compass needle point to?", "It points to the magnetic north pole."),
    )
)
