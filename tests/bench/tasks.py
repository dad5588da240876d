"""Prompts whose answers repeat much of what they were given: [(name, prompt, tokens of the answer at most)]."""

PASSAGE = """The lighthouse on the northern cape was built in 1871 by masons who came from the mainland every spring \
and left before the autumn storms. Its tower is thirty-one metres high and its walls are two metres thick at the base. \
The first keeper, a former ship's carpenter, lived there with his wife and five children, and he wrote every day into a \
book with a green cover. In that book he noted the wind, the height of the waves, the ships that passed, and the oil \
that the lamp had burned during the night. On the ninth of January 1884 a storm broke three panes of the lantern, and \
the keeper stood in the wind until morning and held a sail before the flame. No ship was lost in that night. In 1926 \
the oil lamp was replaced by an electric one, and in 1974 the last keeper left the tower, because the light had learned \
to switch itself on and off. Today the house of the keepers is a museum. Visitors can read the green book under glass, \
and every year on the ninth of January the people of the village carry a sail up the stairs."""

CODE = """def monthly_report(orders, rates):
    total = 0
    by_country = {}
    for order in orders:
        value = order.amount * rates[order.currency]
        if order.is_cancelled:
            continue
        total = total + value
        if order.country not in by_country:
            by_country[order.country] = 0
        by_country[order.country] = by_country[order.country] + value
    largest = None
    for country in by_country:
        if largest is None or by_country[country] > by_country[largest]:
            largest = country
    lines = ["total: %.2f" % total]
    for country in sorted(by_country):
        lines.append("%s: %.2f" % (country, by_country[country]))
    lines.append("largest: %s" % largest)
    return lines
"""

COPY = [
    ("summary", "Summarise the following text. Support each point with an exact quote from the text, in quotation "
     "marks.\n\n" + PASSAGE + "\n\nSummary with quotes:", 160),
    ("code edit", "Rename the function monthly_report to yearly_report. Print the whole function again and change "
     "nothing else.\n\n```python\n" + CODE + "```", 240),
]
