"""The page of `mdmmt app`, on which a person searches a library of videos in a browser.

The page is made of Gradio's components, and each feature is one function that a component calls.
"""
