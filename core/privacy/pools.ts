/**
 * What synthetic people are made of: common given and family names and real cities, from every inhabited continent.
 * Plain data in ASCII; given and family names are combined at random across regions, so no entry names anybody.
 */
const words = (text: string): readonly string[] => text.trim().split(/\s+/);
const lines = (text: string): readonly string[] => text.trim().split(/\s*\n\s*/);

export const FEMININE = words(`
  Adaeze Aiko Aisha Alejandra Amara Amelia Amina Ana Anahita Anneli Astrid Ayse Beatriz Bianca Birgit Camila Carmen
  Catalina Chiara Chloe Clara Daniela Deborah Divya Dorota Ebru Eilidh Elena Elif Emma Esther Fatima Fiona Francesca
  Freya Gabriela Giulia Grace Hana Hannah Helga Hyejin Ines Ingrid Isabel Iva Jasmine Joana Kalina Katarzyna Keiko
  Khadija Lakshmi Larissa Leila Lerato Ling Lucia Magdalena Mai Manon Mariam Marta Matilda Mei Meera Mercy Milica
  Minji Mwajuma Nadia Naledi Natalia Ngozi Nina Noor Olga Paula Petra Pooja Rania Rosa Sakura Salma Sanna Shreya
  Sigrid Sofia Stella Svetlana Thandiwe Tereza Thuy Uma Valentina Wanjiru Xiaomei Yara Yasmin Yuki Zainab Zuzana
`);

export const MASCULINE = words(`
  Abdul Adrian Ahmed Alejandro Alexei Amit Anders Andrei Anil Antonio Arjun Babak Bashir Bjorn Bogdan Bruno Callum
  Carlos Cheng Chidi Chinedu Christoph Dae Daniel David Dawit Diego Dmitri Eduardo Emeka Emil Emre Enrique Erik
  Farid Felipe Filip Finn Francisco Gabor George Giovanni Guilherme Hamza Haruto Hassan Henrik Hiroshi Hugo Hung
  Ibrahim Igor Imran Ivan Jakub Jamal Javier Jin Joao Johan Jorge Juho Kamal Karim Kenji Kofi Kwame Lars Leon
  Luca Luis Magnus Mandla Marco Mateo Mehmet Miguel Milan Mustafa Nikhil Nikola Noah Oleg Omar Oscar Paolo Pavel
  Piotr Rafael Rahul Ravi Samuel Sanjay Sipho Sota Stefan Tariq Tendai Thabo Tomas Tuan Viktor Wei Yusuf Zoltan
`);

export const FAMILY = words(`
  Abara Abbas Acosta Adeyemi Aguilar Ahmadi Akhtar Alves Andersson Araujo Asante Aydin Balogun Banerjee Barros
  Bauer Becker Benali Berg Bianchi Blanc Boateng Bondarenko Botha Brandt Campbell Castillo Celik Chatterjee Chaudhry
  Chen Chikwanha Cho Cohen Conti Costa Cruz Dang Danso Delgado Demir Desai Diallo Diaz Dimitrov Dlamini Dubois
  Dvorak Eriksen Espinoza Fashola Fernando Ferrari Fischer Flores Fontaine Fujita Garcia Gebre Ghosh Gomes Gonzalez
  Greco Gunawardena Gupta Haddad Hakimi Hansen Haruna Hashimoto Herrera Hoang Hoffmann Horvat Hosseini Huang
  Hussain Ibarra Inoue Iqbal Ivanov Jansen Jimenez Johansson Kamau Kapoor Karlsson Kaya Keita Khalil Khumalo Kim
  Kimura Koch Kovac Kowalski Kozlov Kumar Lambert Larsen Laurent Lebedev Lee Lefebvre Levy Lim Lindgren Lombardi
  Lopes Lundqvist Mabaso MacDonald Maharaj Mahmoud Malik Mansour Marek Marino Martins Mazur Mbeki Medina Melnyk
  Mendoza Mensah Menon Meyer Miller Mishra Mokoena Molina Moreau Moretti Morozov Mueller Mutasa Mwangi Nagy Nair
  Nakamura Navarro Ndiaye Nguyen Nielsen Njoroge Novak Nowak Nunes Obi Ochieng Odhiambo Oduya Ogawa Okafor Okonkwo
  Olsen Omondi Ortega Osei Osman Otieno Ozturk Pacheco Papadopoulos Park Patel Pavlov Pereira Perera Petrenko
  Petrov Pham Phiri Popescu Prasad Quispe Rahman Ramos Rao Rezaei Ricci Riley Rivera Romano Rossi Roux Ruiz Saito
  Sahin Salazar Salem Santos Sato Schmidt Schneider Sharma Shevchenko Silva Singh Sithole Soares Sokolov Soto
  Suzuki Svensson Szabo Takahashi Tan Tanaka Teixeira Tesfaye Torres Toure Tran Tshabalala Uchida Vargas Vasquez
  Virtanen Vogel Vu Wagner Walker Wang Weber Wisniewska Wood Yamada Yang Yildiz Yilmaz Zapata Zhang Zhou Zulu
`);

export const CITIES = lines(`
  Accra, Ghana
  Addis Ababa, Ethiopia
  Adelaide, Australia
  Almaty, Kazakhstan
  Amman, Jordan
  Ankara, Turkey
  Antananarivo, Madagascar
  Antwerp, Belgium
  Arequipa, Peru
  Asuncion, Paraguay
  Athens, Greece
  Auckland, New Zealand
  Baku, Azerbaijan
  Bangkok, Thailand
  Barcelona, Spain
  Basel, Switzerland
  Beirut, Lebanon
  Belgrade, Serbia
  Bergen, Norway
  Berlin, Germany
  Birmingham, United Kingdom
  Bogota, Colombia
  Bologna, Italy
  Boston, United States
  Brasilia, Brazil
  Bratislava, Slovakia
  Brisbane, Australia
  Bucharest, Romania
  Budapest, Hungary
  Buenos Aires, Argentina
  Bursa, Turkey
  Busan, South Korea
  Cairo, Egypt
  Calgary, Canada
  Cape Town, South Africa
  Casablanca, Morocco
  Cebu City, Philippines
  Chengdu, China
  Chennai, India
  Chicago, United States
  Cluj-Napoca, Romania
  Cologne, Germany
  Colombo, Sri Lanka
  Copenhagen, Denmark
  Cordoba, Argentina
  Cork, Ireland
  Curitiba, Brazil
  Cusco, Peru
  Dakar, Senegal
  Da Nang, Vietnam
  Dar es Salaam, Tanzania
  Daegu, South Korea
  Denver, United States
  Dhaka, Bangladesh
  Doha, Qatar
  Dublin, Ireland
  Durban, South Africa
  Edinburgh, United Kingdom
  Fes, Morocco
  Florence, Italy
  Frankfurt, Germany
  Fukuoka, Japan
  Gaborone, Botswana
  Gdansk, Poland
  Geneva, Switzerland
  Ghent, Belgium
  Glasgow, United Kingdom
  Gothenburg, Sweden
  Graz, Austria
  Guadalajara, Mexico
  Guayaquil, Ecuador
  Hamburg, Germany
  Hanoi, Vietnam
  Harare, Zimbabwe
  Havana, Cuba
  Helsinki, Finland
  Hiroshima, Japan
  Hobart, Australia
  Houston, United States
  Hyderabad, India
  Ibadan, Nigeria
  Istanbul, Turkey
  Izmir, Turkey
  Jaipur, India
  Jakarta, Indonesia
  Johannesburg, South Africa
  Kampala, Uganda
  Karachi, Pakistan
  Kathmandu, Nepal
  Kigali, Rwanda
  Kingston, Jamaica
  Kochi, India
  Kolkata, India
  Krakow, Poland
  Kuala Lumpur, Malaysia
  Kumasi, Ghana
  Kyoto, Japan
  La Paz, Bolivia
  Lagos, Nigeria
  Lahore, Pakistan
  Leipzig, Germany
  Lima, Peru
  Lisbon, Portugal
  Ljubljana, Slovenia
  London, United Kingdom
  Luanda, Angola
  Lusaka, Zambia
  Lyon, France
  Madrid, Spain
  Malmo, Sweden
  Manila, Philippines
  Maputo, Mozambique
  Marrakesh, Morocco
  Marseille, France
  Medellin, Colombia
  Melbourne, Australia
  Merida, Mexico
  Mexico City, Mexico
  Milan, Italy
  Mombasa, Kenya
  Monterrey, Mexico
  Montevideo, Uruguay
  Montreal, Canada
  Mumbai, India
  Munich, Germany
  Nagoya, Japan
  Nairobi, Kenya
  Nantes, France
  Naples, Italy
  Osaka, Japan
  Oslo, Norway
  Ottawa, Canada
  Panama City, Panama
  Paris, France
  Penang, Malaysia
  Perth, Australia
  Phnom Penh, Cambodia
  Porto, Portugal
  Portland, United States
  Prague, Czech Republic
  Pune, India
  Quito, Ecuador
  Recife, Brazil
  Reykjavik, Iceland
  Riga, Latvia
  Rosario, Argentina
  Rotterdam, Netherlands
  Salvador, Brazil
  San Jose, Costa Rica
  Santiago, Chile
  Sao Paulo, Brazil
  Sapporo, Japan
  Sarajevo, Bosnia and Herzegovina
  Seattle, United States
  Seoul, South Korea
  Seville, Spain
  Shanghai, China
  Singapore, Singapore
  Sofia, Bulgaria
  Split, Croatia
  Stockholm, Sweden
  Sucre, Bolivia
  Surabaya, Indonesia
  Sydney, Australia
  Taipei, Taiwan
  Tallinn, Estonia
  Tampere, Finland
  Tashkent, Uzbekistan
  Tbilisi, Georgia
  Thessaloniki, Greece
  Tokyo, Japan
  Toronto, Canada
  Toulouse, France
  Tunis, Tunisia
  Turin, Italy
  Ulaanbaatar, Mongolia
  Utrecht, Netherlands
  Valencia, Spain
  Valparaiso, Chile
  Vancouver, Canada
  Vienna, Austria
  Vilnius, Lithuania
  Warsaw, Poland
  Wellington, New Zealand
  Windhoek, Namibia
  Xiamen, China
  Yangon, Myanmar
  Yerevan, Armenia
  Zagreb, Croatia
  Zanzibar City, Tanzania
  Zurich, Switzerland
`);
