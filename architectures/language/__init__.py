"""The language that family modules are written in: values that say how tensors and configs correspond, both ways.

declaration   Architecture, Placement, and facts about a set of tensors
layouts       which name is which, per format; tables and patterns are what they are compiled from
transforms    how tensors become others; primitives are the verbs, arrays what they build
pairs         which config key is which metadata key; entries, schedules, rotary, longrope, imaging are stranger ones
config        one spelling for every config.json
expressions   sizes that follow from the config
"""
