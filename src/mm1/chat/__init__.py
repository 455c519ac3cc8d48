"""A conversation with a model in the terminal.

line --lines--> text, pictures --conversation--> prompt --MM1Generator--> tokens --writing--> words on the screen
                                    ^ examples, history
"""
