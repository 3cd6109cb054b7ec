//! Properties of the built-in stories.

use super::*;

#[test]
fn samples_read_well() {
    let grammar = Grammar::built_in();
    println!(
        "{} bits {} bytes {} bits/byte, {} collision",
        grammar.entropy_bits(),
        grammar.expected_bytes(),
        grammar.entropy_bits_per_byte(),
        grammar.collision_bits()
    );
    let mut rng = stream(1, Split::Train);
    for _ in 0..12 {
        let story = grammar.generate(&mut rng);
        println!("{}\n", story.text);
        assert_eq!(
            grammar.parse(&story.text).expect("a story").log2_probability,
            story.log2_probability
        );
    }
}
